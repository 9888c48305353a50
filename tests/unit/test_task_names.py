"""Which queues carry which subtasks."""

from __future__ import annotations

from orchestrator.task_names import agents_queue, queues_of_worker


def test_a_subtask_without_needs_goes_to_the_plain_queue() -> None:
    assert agents_queue([]) == "agents"


def test_the_order_of_needs_does_not_matter() -> None:
    assert agents_queue(["large", "gpu", "gpu"]) == agents_queue(["gpu", "large"]) == "agents.gpu+large"


def test_a_worker_serves_every_need_that_it_can_meet() -> None:
    offered = queues_of_worker(["gpu", "large"])
    assert offered[0] == "agents"
    assert set(offered) == {agents_queue(needs) for needs in ([], ["gpu"], ["large"], ["gpu", "large"])}
    assert queues_of_worker([]) == ["agents"]
