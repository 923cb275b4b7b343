"""Errors that say what to do, told where they are read: a run's page in the UI opens with the failure's description."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def explained() -> Iterator[None]:
    """Turns the errors that the user can mend (a wrong setting, a missing artifact) into a Failure with their message.

    All others keep their traceback as the answer: they are defects.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, _mendable()):
            raise dg.Failure(description=str(error), allow_retries=False) from error
        raise


def _mendable() -> tuple[type[Exception], ...]:
    from tgn_assets.ml.artifact_io import ArtifactError, TrainingError
    from tgn_assets.ml.data.attribute_files import AttributeTableError
    from tgn_assets.ml.data.policy_files import PolicyError
    from tgn_assets.ml.export.parquet import ExportError
    from tgn_assets.ml.graph.loaders import SamplerNotInstalled
    from tgn_assets.ml.sources.extent import SourceError
    from tgn_assets.state.warehouse import WarehouseError

    training = (TrainingError, SamplerNotInstalled)
    return ArtifactError, ExportError, PolicyError, AttributeTableError, SourceError, *training, WarehouseError
