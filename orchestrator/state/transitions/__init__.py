"""The only code that changes a status.

Each change is one guarded UPDATE that says whether it landed, and writes its event in the same transaction. Whoever
changes more than one row of a job locks the job's row first (`lock_job`), so that nobody waits for anybody in a circle.

    job       pending → running                     jobs.start_job
              pending, running → final              jobs.finish_job
              failed, cancelled → running           jobs.reopen_job          (reopens)
    group     pending → running                     groups.start_group
              pending → running, unmerged work only groups.resume_group
              pending → failed, nothing could run   groups.fail_group
              running → merging                     groups.claim_merge_statement
              merging → running                     groups.put_off, groups.send_back (which reopens subtasks),
                                                    groups.give_up_dead_merges
              merging → completed, failed           groups.finish_group
              pending, running → skipped, cancelled groups.end_groups
              completed, failed, … → pending        groups.reopen_groups     (reopens)
    subtask   pending → in_progress                 claims.claim
              in_progress → pending, final          ends.end_attempt
              pending → skipped, cancelled          subtasks.end_pending
              pending → skipped, failed             budget.refuse_what_is_left
              completed → failed                    subtasks.fail_merged
              completed, final → pending            subtasks.reopen          (reopens)
    attempt   running → outcome                     ends.end_attempt

A transition that reopens something clears `finished_at`; they are the four marked ones and no others.
"""
