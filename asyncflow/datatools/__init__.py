"""Data that a flow keeps outside of its artifacts: `S3`, with Metaflow's names and behaviour."""

from __future__ import annotations

from asyncflow.datatools.s3 import (
    S3,
    AsyncS3,
    RangeInfo,
    S3GetObject,
    S3Object,
    S3PutObject,
)

__all__ = ["S3", "AsyncS3", "RangeInfo", "S3GetObject", "S3Object", "S3PutObject"]
