"""A whole batch: by worker processes of this machine, or by a cluster's."""

from __future__ import annotations

from facestream.pipeline.batch import manifest
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.record_store import RecordStore
from facestream.pipeline.batch.run import Batch, Dispatcher
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.records import ending_of
from facestream.pipeline.video.output import check, sweep


def run_batch(batch: Batch) -> int:
    """Run the batch; returns the worst file's exit code. Raises UserError for what concerns all files."""
    if batch.manifest is not None:
        check(batch.manifest, batch.overwrite or (batch.resume and manifest.is_ours(batch.manifest)))
    if batch.records is not None:
        ending_of(batch.records)
    detector_of(batch.config)  # fails here once, not in every worker
    journal = Journal(batch.output)
    try:
        records = None
        if batch.records is not None:
            records = RecordStore(batch.records, journal, batch.overwrite, batch.resume)
        dispatcher = _dispatcher(batch, journal, records)
        try:
            dispatcher.work()
        finally:
            if batch.manifest is not None:
                sweep(batch.manifest)
                complete = len(dispatcher.entries) == len(batch.jobs)
                entries_in_order = [entry for _, entry in sorted(dispatcher.entries.items())]
                manifest.write(batch.manifest, entries_in_order, batch.config, batch.two_pass, complete)
        if records is not None:
            entries = sorted(dispatcher.entries.items())
            records.gather((batch.jobs[i].source, entry) for i, entry in entries if entry.has_output)
    finally:
        journal.close()
    return dispatcher.summary()


def _dispatcher(batch: Batch, journal: Journal, records: RecordStore | None) -> Dispatcher:
    if not batch.ray:
        return Dispatcher(batch, journal, records)
    from facestream.pipeline.batch.cluster import ClusterDispatcher

    return ClusterDispatcher(batch, journal, records)
