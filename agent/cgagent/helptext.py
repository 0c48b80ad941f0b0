"""Help as argparse prints it, from a command's declarations. Loaded for `--help`, never for work."""

from __future__ import annotations

from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter

from cgagent.parser import REST, Parser


def help_text(parser: Parser) -> str:
    """What `--help` prints."""
    copy = ArgumentParser(
        prog=parser.prog,
        description=parser.description,
        epilog=parser.epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    repeat(parser, copy)
    text = copy.format_help()
    rest = next((one for one in parser if one.nargs == REST), None)
    # argparse shows the words of a command as dots alone.
    return text if rest is None else text.replace(f" {REST}\n", f" {rest.metavar} {REST}\n", 1)


def repeat(parser: Parser, copy: ArgumentParser) -> list[Action]:
    """Declare the arguments of `parser` to `copy` too; return them."""
    actions = []
    for group in parser.groups:
        place = copy if group is parser else copy.add_argument_group(group.title)
        actions += [place.add_argument(*argument.names, **argument.keywords) for argument in group.arguments]
    return actions
