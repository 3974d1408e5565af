"""Every table of the service: importing this fills `BaseModel.metadata`."""

from app.core.db import BaseModel, jobs
from app.core.modules import parts

MODELS = [jobs, *parts("models")]
metadata = BaseModel.metadata
