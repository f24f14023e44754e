"""Draw the picture on the first page: what the shipped weights find.

    python tools/hero.py
"""
import numpy as np
from notebooks import ROOT
from PIL import Image
from sklearn.datasets import load_sample_image

import d2lssd
from d2lssd.prediction import save_picture


def main():
    photo = np.asarray(load_sample_image('flower.jpg'))
    image, boxes = d2lssd.compose(photo, 'val', seed=4, num_bananas=4,
                                  size=(90, 300))
    found = d2lssd.detect(image, threshold=0.5)
    path = ROOT / 'book' / '_static' / 'hero.jpg'
    save_picture(Image.fromarray(image), found, path)
    print(f'{path.name}: {len(boxes)} bananas, {len(found)} found')


if __name__ == '__main__':
    main()
