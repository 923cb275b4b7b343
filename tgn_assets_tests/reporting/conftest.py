from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import vl_convert


@pytest.fixture(scope="package", autouse=True)
def _charts_of_the_schema() -> Iterator[None]:
    """Validates each chart that is drawn: the package itself does not."""
    import altair as alt

    draw, wrong = vl_convert.vegalite_to_svg, list[jsonschema.ValidationError]()

    def validated(spec: dict[str, Any]) -> str:
        try:
            alt.Chart.from_dict(spec)
        except jsonschema.ValidationError as error:  # a report would leave the picture out
            wrong.append(error)
        return draw(spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", validated)
        yield
    assert wrong == []
