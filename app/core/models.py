"""Registry of tables: importing this fills `BaseModel.metadata`."""

from app.core.db import BaseModel, installation, jobs
from app.core.modules import parts

MODELS = [installation, jobs, *parts("models")]
metadata = BaseModel.metadata
