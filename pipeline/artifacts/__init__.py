"""Artifacts, what stages make and keep: how they are described, written, read and called."""

from pipeline.artifacts.io import (
    artifact_id,
    find_artifact,
    is_complete,
    load_artifact,
    load_document,
    save_artifact,
    settings,
)
from pipeline.artifacts.once import give, look_up, make_once
from pipeline.artifacts.parse import to_json
from pipeline.artifacts.read import Artifact
from pipeline.artifacts.resolve import list_artifacts, make_latest
from pipeline.kinds import folder

__all__ = [
    "Artifact",
    "artifact_id",
    "find_artifact",
    "folder",
    "give",
    "is_complete",
    "list_artifacts",
    "load_artifact",
    "load_document",
    "look_up",
    "make_latest",
    "make_once",
    "save_artifact",
    "settings",
    "to_json",
]
