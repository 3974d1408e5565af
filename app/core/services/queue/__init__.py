"""Queue: tasks stored with the transaction that pushes them, run after it has committed."""

from app.core.services.queue.broker import JobWaker, make_broker
from app.core.services.queue.injection import call_with_dependencies, outside_requests
from app.core.services.queue.interface import (
    BaseTask,
    Cron,
    Every,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobNotReady,
    Limit,
    PermanentFailure,
    QueueServiceInterface,
    RunningJob,
    current_job,
)
from app.core.services.queue.registry import TaskDataError, TaskResultError, queued
from app.core.services.queue.runner import JobRunner
from app.core.services.queue.schedule import Clock, PurgeJobs
from app.core.services.queue.service import QueueService
from app.core.services.queue.store import erase_jobs, move_jobs

__all__ = [
    "BaseTask",
    "Clock",
    "Cron",
    "Every",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobNotReady",
    "JobRunner",
    "JobWaker",
    "Limit",
    "PermanentFailure",
    "PurgeJobs",
    "QueueService",
    "QueueServiceInterface",
    "RunningJob",
    "TaskDataError",
    "TaskResultError",
    "call_with_dependencies",
    "current_job",
    "erase_jobs",
    "make_broker",
    "move_jobs",
    "outside_requests",
    "queued",
]
