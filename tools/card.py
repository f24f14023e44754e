"""Draw the picture that stands beside a shared link to the book.

    python tools/card.py
"""
import textwrap

import yaml
from matplotlib.font_manager import FontProperties, findfont
from notebooks import BOOK, ROOT
from PIL import Image, ImageDraw, ImageFont, ImageOps

SIZE = 1200, 630
LEFT = 530


def font(size, weight='normal'):
    path = findfont(FontProperties(family='DejaVu Sans', weight=weight))
    return ImageFont.truetype(path, size)


def main():
    config = yaml.safe_load((ROOT / '_config.yml').read_text('utf-8'))
    card = Image.new('RGB', SIZE, '#14181d')
    photo = Image.open(BOOK / '_static' / 'hero.jpg').convert('RGB')
    card.paste(ImageOps.fit(photo, (SIZE[0] - LEFT, SIZE[1]),
                            centering=(1, 0.5)), (LEFT, 0))
    draw = ImageDraw.Draw(card)
    title = '\n'.join(textwrap.wrap(config['title'], 14))
    draw.multiline_text((56, 130), title, font=font(58, 'bold'),
                        fill='#ffffff', spacing=18)
    draw.multiline_text((56, 430), 'Build an object detector\nfrom nothing, '
                        'and see it\nfind bananas.', font=font(30),
                        fill='#f5c518', spacing=12)
    path = BOOK / '_static' / 'card.jpg'
    card.save(path, quality=85, optimize=True, progressive=True)
    print(path.relative_to(ROOT), path.stat().st_size, 'bytes')


if __name__ == '__main__':
    main()
