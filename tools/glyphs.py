"""Draw the emoji sprites of the lite world from Noto Color Emoji (SIL Open Font License 1.1).

python -m tools.glyphs --font NotoColorEmoji.ttf --out data_samples/sprites
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mi2v_lite.cli import guarded

GLYPH_SIZE = 72

# Glyph and caption name. Faces, people and flags are left out, and so is what is too thin to read at 28 pixels.
# There is no camera either: captions speak of "the camera".
TRAIN_GLYPHS = """
🐱 cat face|🐶 dog face|🐹 hamster face|🐰 rabbit face|🦊 fox face|🐻 bear face|🐼 panda face|🐨 koala|
🐯 tiger face|🦁 lion face|🐷 pig face|🐸 frog face|🐵 monkey face|🐔 chicken|🐧 penguin|🐦 blue bird|
🐤 baby chick|🦆 duck|🦅 eagle|🦉 owl|🦇 bat|🐺 wolf face|🐗 boar|🐴 horse face|🦄 unicorn face|🐝 honeybee|
🐛 caterpillar|🦋 butterfly|🐌 snail|🐞 ladybug|🐜 ant|🐢 turtle|🐍 snake|🦎 lizard|🐙 octopus|🦑 squid|
🦐 shrimp|🦀 crab|🐡 blowfish|🐠 tropical fish|🐟 blue fish|🐬 dolphin|🐋 whale|🦈 shark|🐊 crocodile|
🐅 tiger|🐆 leopard|🦓 zebra face|🦍 gorilla|🐘 elephant|🦏 rhinoceros|🐂 ox|🐄 cow|🐎 horse|🐖 pig|🐏 ram|
🐑 sheep|🐐 goat|🦌 deer|🐕 dog|🐩 poodle|🐈 cat|🐓 rooster|🦃 turkey|🐇 rabbit|🐁 mouse|🐿 chipmunk|
🦔 hedgehog|🌵 cactus|🎄 christmas tree|🌲 evergreen tree|🌳 tree|🌴 palm tree|🍀 four leaf clover|
🍁 maple leaf|🍄 mushroom|🌹 rose|🌻 sunflower|🌼 blossom|🌷 tulip|🌍 globe|🌕 full moon|🔥 fire|⛄ snowman|
☁ cloud|🍎 red apple|🍐 pear|🍊 tangerine|🍋 lemon|🍌 banana|🍉 watermelon|🍓 strawberry|
🍒 pair of cherries|🍑 peach|🥭 mango|🍍 pineapple|🍅 tomato|🥑 avocado|🥕 carrot|🥦 broccoli|🥐 croissant|
🍞 loaf of bread|🥨 pretzel|🧀 cheese wedge|🍔 hamburger|🍟 box of french fries|🍕 slice of pizza|
🌭 hot dog|🍩 doughnut|🍪 cookie|🎂 birthday cake|🍭 lollipop|🍬 candy|🍫 chocolate bar|🍿 box of popcorn|
🍦 ice cream|☕ cup of coffee|⚽ soccer ball|🏀 basketball|🏈 american football|⚾ baseball|🏐 volleyball|
🎱 billiard ball|🏆 trophy|🎸 guitar|🎺 trumpet|🎻 violin|🥁 drum|🎲 game die|🎯 target|🎨 artist palette|
🎈 red balloon|🎁 wrapped present|🪁 kite|🚗 red car|🚕 taxi|🚙 blue car|🚌 bus|🚓 police car|🚑 ambulance|
🚒 fire engine|🚐 minibus|🚚 delivery truck|🚜 tractor|🛵 motor scooter|🏍 motorcycle|🚂 steam locomotive|
🚋 tram car|✈ airplane|🚀 rocket|🛸 flying saucer|🚁 helicopter|⛵ sailboat|🚤 speedboat|🚢 ship|⚓ anchor|
🏠 house|🏰 castle|⛺ tent|💡 light bulb|🔑 key|🔨 hammer|📺 television|⏰ alarm clock|☂ umbrella|
👑 crown|💎 gem stone|👟 running shoe|🎒 backpack|📦 cardboard box|📚 stack of books|🔔 bell|🧸 teddy bear|
🪑 chair|🏮 red lantern|🧲 magnet|🧭 compass|🗿 stone head|🤖 robot face|👻 ghost|🎃 pumpkin|👽 alien
"""
HELDOUT_GLYPHS = """
🦜 parrot|🦚 peacock|🦩 flamingo|🦢 swan|🦘 kangaroo|🦙 llama|🦥 sloth|🦦 otter|🐉 dragon|🐫 camel|🦞 lobster|
🌺 hibiscus|🍆 eggplant|🥥 coconut|🍈 melon|🥞 stack of pancakes|🧁 cupcake|🛹 skateboard|🛶 canoe|
🚃 railway car|🚠 cable car|🛺 auto rickshaw|🎷 saxophone|🪂 parachute|🧊 ice cube
"""


def glyph_names(text: str) -> dict[str, str]:
    """Caption name -> glyph, from one of the lists above."""
    pairs = (entry.strip().split(" ", 1) for entry in text.replace("\n", "").split("|"))
    return {name: glyph for glyph, name in pairs}


def extract_glyphs(font: Path, out: Path, size: int = GLYPH_SIZE) -> int:
    """Draw the glyphs of both lists into `out/train` and `out/heldout`, as palette PNGs with alpha.

    Args:
        font: a colour bitmap font, with bitmaps of 136 x 128 pixels at size 109.
        out: the folder to write to.
        size: side of the pictures in pixels; the glyphs are cropped and centred.

    Returns:
        how many were drawn.

    Raises:
        ValueError: the font lacks one of the glyphs.
    """
    face = ImageFont.truetype(str(font), 109)
    count = 0
    for folder, text in (("train", TRAIN_GLYPHS), ("heldout", HELDOUT_GLYPHS)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for name, glyph in glyph_names(text).items():
            image = Image.new("RGBA", (160, 160))
            ImageDraw.Draw(image).text((12, 12), glyph, font=face, embedded_color=True)
            box = image.getbbox()
            if box is None:
                raise ValueError(
                    f"{font} has no colour glyph for {name!r} ({glyph}); use Noto Color Emoji 2.042 or later"
                )
            image, side = image.crop(box), max(box[2] - box[0], box[3] - box[1])
            square = Image.new("RGBa", (side, side))
            square.paste(image.convert("RGBa"), ((side - image.width) // 2, (side - image.height) // 2))
            square = square.resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")
            square = square.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            square.save(out / folder / f"{name.replace(' ', '_')}.png", optimize=True)
            count += 1
    return count


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m tools.glyphs --font NotoColorEmoji.ttf --out data_samples/sprites`."""
    parser = argparse.ArgumentParser(prog="python -m tools.glyphs", description="Extract the emoji sprites.")
    parser.add_argument("--font", required=True, type=Path, help="NotoColorEmoji.ttf")
    parser.add_argument("--out", required=True, type=Path, help="folder that gets train/ and heldout/")
    options = parser.parse_args(arguments)
    print(f"{extract_glyphs(options.font, options.out)} glyphs in {options.out}")


if __name__ == "__main__":
    sys.exit(guarded(main))
