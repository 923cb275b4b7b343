import json
from collections.abc import Iterator

import jsonschema
import pytest

from tgn_assets.reporting.renderer import RENDERER


@pytest.fixture(scope="package", autouse=True)
def _charts_of_the_schema() -> Iterator[None]:
    """Validates each chart that is drawn: the package itself does not."""
    import altair as alt

    draw, wrong = RENDERER.svg, list[jsonschema.ValidationError]()

    def validated(chart: str) -> str:
        try:
            alt.Chart.from_dict(json.loads(chart))
        except jsonschema.ValidationError as error:  # a report would leave the picture out
            wrong.append(error)
        return draw(chart)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RENDERER, "svg", validated)
        yield
    assert wrong == []
