"""Queue: tasks stored with the transaction that pushes them, run after it has committed."""

from app.core.services.queue.broker import make_broker
from app.core.services.queue.context import PermanentFailure, RunningJob, current_job
from app.core.services.queue.interface import BaseTask, QueueServiceInterface
from app.core.services.queue.registry import TaskDataError, queued
from app.core.services.queue.runner import JobRunner
from app.core.services.queue.schedule import JobScheduler
from app.core.services.queue.service import QueueService
from app.core.services.queue.tasks import PurgeJobs
from app.core.services.queue.waker import JobWaker

__all__ = [
    "BaseTask",
    "JobRunner",
    "JobScheduler",
    "JobWaker",
    "PermanentFailure",
    "PurgeJobs",
    "QueueService",
    "QueueServiceInterface",
    "RunningJob",
    "TaskDataError",
    "current_job",
    "make_broker",
    "queued",
]
