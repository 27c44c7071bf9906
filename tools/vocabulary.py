"""Make the lite model's vocabulary: a byte-level BPE in CLIP's own file format (vocab.json, merges.txt).

    python -m tools.vocabulary --out mi2v_lite/weights/tokenizer

It has all 256 bytes, so that every prompt can be tokenized, and the merges of a list of words about things that move,
with the names of the things in real photos, of which the captions of `mi2v_lite.data.lite_world` tell. BPE runs until
each of these words is one token.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mi2v_lite.cli import guarded
from mi2v_lite.data.captions import ANYTHING, MIDDLE, PLACES
from mi2v_lite.data.things import names_of
from mi2v_lite.models.text import build_tokenizer
from tools.things.masks import read_things

# Captions speak in the third person ("a balloon floats"); the commonest verbs have the other forms too.
VERBS = """
move moves moving drift drifts drifting float floats floating fly flies flying fall falls falling rise rises rising
spin spins spinning rotate rotates rotating swing swings swinging bounce bounces bouncing grow grows growing
shrink shrinks shrinking approach approaches approaching turn turns turning pan pans panning zoom zooms zooming
roll rolls rolling climbs creeps crawls slides glides sways jumps hops runs walks swims drives sails arcs curves
recedes shakes wobbles circles orbits drops sinks stays stay stands rests waits tilts shifts pulls pushes comes goes
travels heads darts races hovers follows passes crosses tumbles soars dives leaps hangs
gets does swoops running is are be keeps holds has while then not
""".split()  # noqa: SIM905

CAMERA_AND_DIRECTIONS = """
camera view scene background foreground photo picture frame object objects motion parallax
left right up down upwards downwards forward backward backwards sideways in out into away toward towards across over
under above below behind along through past near far from to at on off of with by between
top bottom middle center side corner edge diagonally horizontally vertically clockwise counterclockwise anticlockwise
straight still static steady bigger smaller closer
slowly slow quickly quick fast faster slower gently smoothly suddenly slightly steadily
rapidly swiftly softly a little bit very almost once twice again
""".split()  # noqa: SIM905

FUNCTION_WORDS = """
the a an and or but as it its this that no nothing without both each other another one two three first second
small big large tiny huge long short round bright dark light pale striped dotted checkered textured plain
""".split()  # noqa: SIM905

COLOURS = """
red orange yellow green blue purple violet pink brown black white grey gray cyan magenta turquoise gold golden silver
teal colour color colourful colorful
""".split()  # noqa: SIM905

SHAPES = """
circle disc square triangle rectangle diamond star hexagon pentagon ellipse oval ring cross blob shape polygon ball
cube box stripes dots
""".split()  # noqa: SIM905

# Words of Unicode emoji names: the sprites of the world are named by them.
OBJECTS = """
balloon rocket snail turtle car automobile bus train locomotive engine airplane helicopter bicycle motorcycle scooter
ship boat sailboat speedboat canoe truck tractor ambulance taxi police fire flying saucer satellite parachute kite
anchor wheel bird butterfly bee honeybee ladybug beetle ant spider fish tropical blowfish dolphin whale shark octopus
squid crab lobster shrimp dog cat horse cow ox pig sheep goat camel rabbit mouse hamster hedgehog elephant giraffe
zebra tiger lion bear panda koala fox wolf monkey frog lizard snake crocodile dragon unicorn bat
chicken penguin duck swan eagle owl parrot flamingo peacock feather shell soccer football basketball
baseball tennis volleyball apple banana lemon cherries strawberry grapes watermelon pineapple pear peach kiwi
tomato carrot corn mushroom bread pizza hamburger cake cookie candy lollipop doughnut ice cream coffee cup bottle
sun moon cloud snowflake snowman rainbow lightning droplet flame water wave leaf maple clover flower
blossom rose tulip sunflower cactus tree palm clock bell key lock book gift heart crown gem hat shoe
ghost robot alien monster face smiling skull pumpkin guitar trumpet drum violin umbrella lamp bulb candle
hammer magnet telescope trophy teddy person man woman girl boy hand eye
sky sea ocean lake river beach mountain mountains hill field forest grass garden road street city house building
window door snow rain wind smoke sunset night rock bunny hair head wings tail animal
alarm american artist auto avocado baby backpack bar billiard birthday boar books broccoli cable cardboard
castle caterpillar chair cheese chick chipmunk chocolate christmas coconut compass croissant cupcake deer
delivery die eggplant evergreen four french fries full game globe gorilla hibiscus hot kangaroo lantern
leopard llama loaf mango melon minibus motor otter pair palette pancakes patch poodle popcorn present pretzel
railway ram rhinoceros rickshaw rooster saxophone skateboard slice sloth stack steam stone tangerine target
television tent tram turkey wedge wrapped
""".split()  # noqa: SIM905


def vocabulary_words() -> list[str]:
    """The words that are one token each: lower case ASCII, sorted, without doubles."""
    words = {*VERBS, *CAMERA_AND_DIRECTIONS, *FUNCTION_WORDS, *COLOURS, *SHAPES, *OBJECTS}
    marked = [thing["name"] for entry in read_things().values() for thing in entry["things"]]
    phrases = [*ANYTHING, *PLACES.values(), MIDDLE, "comes towards us", "there is"]
    phrases += [name for mark in marked for name in names_of(mark)]
    return sorted(words | {word for phrase in phrases for word in phrase.split()})


def main(arguments: list[str] | None = None) -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tools.vocabulary", description="Makes the lite tokenizer.")
    parser.add_argument("--out", required=True, type=Path, help="folder of the tokenizer")
    options = parser.parse_args(arguments)
    print(f"{len(build_tokenizer(options.out, vocabulary_words()))} tokens in {options.out}")


if __name__ == "__main__":
    sys.exit(guarded(main))
