"""`tgn models`: the trained models of a home, compared, pinned and rolled back."""

import click

from tgn_assets.cli.base import Week, existing_home, is_verbose, json_option, verbose_option


@click.group(short_help="List, compare, pin and roll back the trained models.")
def models() -> None:
    """The trained models, one per week: their training, their validation, and the score of their lists."""


@models.command("list", short_help="Print every week's model.")
@json_option
@verbose_option
def list_models() -> None:
    """Print every week's model, oldest first.

    Of each: the week whose model it was started from, epochs of encoder and ranker, size, NDCG on the week that
    training held out and that of the best baseline on it, which rankers its lists come from, and the score of these
    lists once their week had closed.
    """
    from tgn_assets.cli.console import answer
    from tgn_assets.reporting.model_cards import model_cards, models_table

    home = existing_home()
    cards = model_cards(home.artifact_store(), home.warehouse())
    if not cards:
        raise click.ClickException("no model was trained yet; run `tgn refresh`")
    pinned = home.artifact_store().pinned()
    answer({"pinned": pinned, "models": models_table(cards)}.items(), {"models": lambda table: [table]})


@models.command(short_help="Print what differs between two weeks' models.")
@click.argument("week", type=Week())
@click.argument("other", type=Week())
@json_option
@verbose_option
def compare(week: str, other: str) -> None:
    """Print what differs between the models of the weeks WEEK and OTHER: numbers and configuration."""
    from tgn_assets.cli.console import answer
    from tgn_assets.reporting.model_cards import comparison_table, model_cards

    home = existing_home()
    store, warehouse = home.artifact_store(), home.warehouse()
    one, two = (model_cards(store, warehouse, [key])[0] for key in (week, other))
    sections = {"weeks": [one.week, two.week], "differences": comparison_table(one, two)}
    answer(sections.items(), {"differences": lambda table: [table]})


@models.command(short_help="Publish from an older week's model.")
@click.argument("week", type=Week())
@verbose_option
def pin(week: str) -> None:
    """Publish the lists of WEEK and of every later week from the ranker of WEEK.

    It holds from the next run on; published lists stay until their week is run again. Models are still trained every
    week, so that `tgn models unpin` can go back to the newest one at any time. Weeks before WEEK are not affected: a
    model must know nothing of what came after them.
    """
    from tgn_assets.reporting.model_cards import check_pin

    store = existing_home().artifact_store()
    check_pin(store, week)
    store.pin(week)
    click.echo(f"lists come from the model of {week} from the next run on; `tgn models unpin` ends it")


@models.command(short_help="Publish from each week's own model again.")
@verbose_option
def unpin() -> None:
    """Publish from each week's own model again, from the next run on."""

    store = existing_home().artifact_store()
    if (was := store.pinned()) is None:
        click.echo("no model was pinned")
        return
    store.pin(None)
    click.echo(f"the model of {was} is no longer pinned: each week's lists come from its own model again")


@models.command(short_help="Make the newest lists with the previous model, and pin it.")
@verbose_option
def rollback() -> None:
    """Make the newest published lists again with the model before the one that made them, and pin that model.

    Nothing is trained. If the lists cannot be made, the published lists and the former pin stay.
    """
    from tgn_assets.cli.console import Progress
    from tgn_assets.cli.runner import open_runner
    from tgn_assets.reporting.model_cards import rollback_target

    home = existing_home()
    store = home.artifact_store()
    newest, model_week = rollback_target(store, home.warehouse())
    before = store.pinned()
    store.pin(model_week)
    try:
        with Progress() as progress, open_runner(home, progress, is_verbose()) as runner:
            runner.publish(newest)
    except BaseException:
        store.pin(before)
        raise
    click.echo(f"the lists of {newest} now come from the model of {model_week}, and so will later ones")
    click.echo("`tgn refresh --if-needed`, or the sensor, makes their report and exports again")
    click.echo("`tgn models unpin` ends it")
