"""`tgn models`: the trained models of a home, beside each other."""

import click

from tgn_assets.cli_base import Week, open_home, verbose_option


@click.group(short_help="List and compare the trained models.")
def models() -> None:
    """The models that were trained, one per week: how they were made, validated, and what their lists then scored."""


@models.command("list", short_help="Print every week's model.")
@verbose_option
def list_models(verbose: bool) -> None:
    """Print every week's model: what it started from, its passes over the data (encoder + ranker), its size, its
    NDCG on the week that was held out beside the best simple rule's, whose lists were published, and what these
    lists scored once their week had closed."""
    from tgn_assets.artifacts import ArtifactStore
    from tgn_assets.console import stdout
    from tgn_assets.models import model_cards, models_table

    home = open_home()
    cards = model_cards(ArtifactStore(home.artifacts), home.warehouse())
    if not cards:
        raise click.ClickException("no model was trained yet; run `tgn refresh`")
    stdout().print(models_table(cards))


@models.command(short_help="Print what differs between two weeks' models.")
@click.argument("week", type=Week())
@click.argument("other", type=Week())
@verbose_option
def compare(week: str, other: str, verbose: bool) -> None:
    """Print what differs between the models of WEEK and OTHER: numbers with their difference, and configuration."""
    from tgn_assets.artifacts import ArtifactStore
    from tgn_assets.console import stdout
    from tgn_assets.models import comparison_table, model_cards

    home = open_home()
    store, warehouse = ArtifactStore(home.artifacts), home.warehouse()
    one, two = (model_cards(store, warehouse, [key])[0] for key in (week, other))
    stdout().print(comparison_table(one, two))
