"""The Celery application with all tasks, as `celery -A workers.app` and Flower find it.

A process that consumes the queue `control` is a dispatcher and reconciles; one that consumes `agents` queues is a
worker. One process may be both.
"""

from __future__ import annotations

from functools import cache

from orchestrator.celery_app import create_app
from orchestrator.closed_process import close_to_others
from orchestrator.dispatch.fleet import Fleet, join_fleet
from orchestrator.dispatch.tasks import register_control_tasks
from orchestrator.settings import load_settings
from workers.advertising import advertise
from workers.agent_runner import AgentRunner
from workers.event_batches import SendEventsTogether
from workers.lifecycle import follow_lifecycle
from workers.slots import Slots, keep_busy
from workers.tasks import register_agent_tasks

close_to_others()  # also where Celery's own command line has started us
settings = load_settings()
app = create_app(settings)
slots = Slots()


@cache
def fleet() -> Fleet:
    return join_fleet(settings, app, pool_size=min(settings.slots + 4, 24), name="orchestrator worker")


@cache
def runner() -> AgentRunner:
    return AgentRunner(fleet(), slots)


register_control_tasks(app, fleet)
register_agent_tasks(app, runner)
advertise(settings)
app.steps["consumer"].add(keep_busy(slots))
app.steps["consumer"].add(SendEventsTogether)
follow_lifecycle(app, fleet, runner)
