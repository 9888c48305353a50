"""One program, run to the end of its whole tree: what it writes, how long it may take, how it is stopped."""

from __future__ import annotations

import gc
import resource
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.process_tree import find_by_cookie
from orchestrator.supervisor import IDLE_TIMEOUT, TIMEOUT, StopSignal
from tests.support.supervision import Supervision, is_alive
from tests.support.waiting import wait_until


@pytest.fixture
def supervision(tmp_path: Path) -> Supervision:
    return Supervision(tmp_path)


def test_lines_come_from_both_streams_and_the_exit_code_is_the_programs(supervision: Supervision) -> None:
    ending = supervision.bash("echo out; echo err >&2; printf 'no newline'; exit 3")
    assert (ending.exit_code, ending.signal, ending.stopped) == (3, None, None)
    assert {("stdout", "out"), ("stderr", "err"), ("stdout", "no newline")} == set(supervision.lines)
    assert ending.output.total_bytes == len("out\nerr\nno newline")
    assert abs((datetime.now(UTC) - ending.started_at).total_seconds()) < 3600


def test_lines_are_handed_on_while_the_program_runs(supervision: Supervision) -> None:
    go = supervision.cwd / "go"
    supervision.on_line = lambda _stream, text: go.touch() if text == "ready" else None
    ending = supervision.bash("echo ready; while [ ! -e go ]; do sleep 0.02; done; exit 5")
    assert ending.exit_code == 5


def test_a_signal_is_no_exit_code(supervision: Supervision) -> None:
    ending = supervision.bash("kill -SEGV $$")
    assert (ending.exit_code, ending.signal, ending.stopped) == (None, 11, None)


def test_stdin_is_empty_or_the_file_named(supervision: Supervision) -> None:
    assert supervision.run(["cat"]).output.text == ""
    prompt = supervision.cwd / "prompt"
    prompt.write_text("x" * 300_000)
    supervision.stdin_file = prompt
    assert supervision.run(["wc", "-c"]).output.text.strip() == "300000"


def test_the_program_leads_a_session_of_its_own(supervision: Supervision) -> None:
    assert supervision.python("import os; print(os.getsid(0) == os.getpid())").output.text == "True\n"


def test_a_missing_program_raises_and_names_it(supervision: Supervision) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        supervision.run(["no-such-agent"])
    assert caught.value.filename == "no-such-agent"
    plain = supervision.cwd / "plain"
    plain.write_text("no program")
    with pytest.raises(PermissionError):
        supervision.run([str(plain)])


def test_invalid_utf8_survives(supervision: Supervision) -> None:
    supervision.bash(r"printf 'a\xff\xfeb\n'")
    assert supervision.lines == [("stdout", "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b")]


def test_a_line_of_100_mb_needs_no_memory(supervision: Supervision) -> None:
    sizes: list[int] = []
    supervision.on_line = lambda _stream, text: sizes.append(len(text))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ending = supervision.python("import sys\nfor _ in range(100): sys.stdout.write('x' * 1_000_000)")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert ending.exit_code == 0
    assert sum(sizes) == ending.output.total_bytes == 100_000_000
    assert max(sizes) < 2_000_000
    assert grown_kib < 40_000
    assert len(ending.output.text) < 100_000


def test_a_full_pipe_never_blocks_the_program(supervision: Supervision) -> None:
    ending = supervision.python("import sys\nfor s in (sys.stderr, sys.stdout) * 20: s.write('x' * 200_000 + '\\n')")
    assert ending.exit_code == 0
    assert ending.output.total_bytes == 40 * 200_001


def test_the_deadline_ends_the_tree(supervision: Supervision) -> None:
    supervision.timeout_seconds = 0.3
    ending = supervision.bash("sleep 600 & setsid sleep 600 & while :; do echo busy; sleep 0.05; done")
    assert (ending.stopped, ending.signal) == (TIMEOUT, 15)
    assert find_by_cookie(supervision.cookie) == []


def test_silence_ends_it_and_any_output_is_a_sign_of_life(supervision: Supervision) -> None:
    supervision.idle_timeout_seconds = 3.0
    ending = supervision.bash("for i in 1 2 3 4 5; do sleep 1; echo $i >&2; done; exec sleep 600")
    assert ending.stopped == IDLE_TIMEOUT
    assert [text for _, text in supervision.lines] == ["1", "2", "3", "4", "5"]
    assert ending.duration_seconds >= 8.0


def test_who_ignores_term_is_killed_after_the_grace(supervision: Supervision) -> None:
    supervision.timeout_seconds = 0.5
    supervision.kill_grace_seconds = 0.3
    ending = supervision.bash("trap '' TERM; while :; do sleep 0.05; done")
    assert (ending.stopped, ending.signal) == (TIMEOUT, 9)
    assert ending.duration_seconds >= 0.8


def test_last_words_are_read_during_the_grace_also_if_they_fill_the_pipe(supervision: Supervision) -> None:
    supervision.idle_timeout_seconds = 2.0
    ending = supervision.python(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (sys.stdout.write('x' * 1_000_000 + '\\n'), sys.exit(4)))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    assert (ending.stopped, ending.exit_code) == (IDLE_TIMEOUT, 4)
    assert sum(len(text) for _, text in supervision.lines) == len("ready") + 1_000_000


def test_a_stop_from_another_thread_is_noticed_at_once(supervision: Supervision) -> None:
    supervision.timeout_seconds = None
    supervision.on_line = lambda *_: threading.Thread(target=supervision.stop.set, args=("cancelled",)).start()
    ending = supervision.bash("echo ready; exec sleep 600")
    assert (ending.stopped, ending.signal) == ("cancelled", 15)


def test_a_stop_that_came_before_starts_nothing(supervision: Supervision) -> None:
    supervision.stop.set("lease lost")
    supervision.stop.set("a later reason does not count")
    ending = supervision.bash("touch started")
    assert (ending.stopped, ending.exit_code, ending.signal) == ("lease lost", None, None)
    assert not (supervision.cwd / "started").exists()


def test_a_stop_signal_may_be_set_after_it_was_closed() -> None:
    signal = StopSignal()
    signal.close()
    signal.set("too late")
    signal.close()
    assert signal.reason is None


def test_leftovers_of_a_normal_end_are_ended_and_do_not_hold_us_up(supervision: Supervision) -> None:
    supervision.timeout_seconds = None
    ending = supervision.bash("sleep 600 & (setsid sleep 600 &) ; echo done")
    assert (ending.exit_code, ending.stopped) == (0, None)
    assert supervision.lines == [("stdout", "done")]
    assert find_by_cookie(supervision.cookie) == []


def test_the_last_writer_of_the_pipe_may_finish(supervision: Supervision) -> None:
    supervision.bash("exec > >(sleep 0.05; cat); echo through the filter")
    assert supervision.lines == [("stdout", "through the filter")]


def test_an_error_of_the_reader_ends_the_tree_and_comes_out(supervision: Supervision) -> None:
    def fail(_stream: str, _text: str) -> None:
        raise LookupError("the reader is broken")

    supervision.on_line = fail
    supervision.timeout_seconds = None
    with pytest.raises(LookupError, match="the reader is broken"):
        supervision.bash("(setsid sleep 600 &) ; while :; do echo more; sleep 0.01; done")
    assert find_by_cookie(supervision.cookie) == []


def test_many_at_once_leak_neither_processes_nor_descriptors_nor_threads(tmp_path: Path) -> None:
    Supervision(tmp_path).bash("true")
    gc.collect()  # signals of earlier tests close their descriptors when they go
    descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    runs = [Supervision(tmp_path, stop=StopSignal()) for _ in range(40)]
    slots = [threading.Thread(target=run.bash, args=("echo $$; (setsid sleep 600 &); exec sleep 600",)) for run in runs]
    for slot in slots:
        slot.start()
    wait_until(lambda: all(run.lines for run in runs), "all of them run")
    assert threading.active_count() == threads + len(slots)  # no thread but the slot's own
    for run in runs:
        run.stop.set("cancelled")
    for slot in slots:
        slot.join(60)
    assert not any(find_by_cookie(run.cookie) for run in runs)
    assert not any(is_alive(int(text)) for run in runs for _, text in run.lines)
    for run in runs:
        run.stop.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
