"""Opening pictures of every kind, and refusing what is none."""
import io
import struct
import subprocess
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2lssd.data import pictures
from d2lssd.data.pictures import open_image


def saved(image, kind='PNG', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def noise(*shape, top=255, dtype=np.uint8):
    drawn = np.random.default_rng(3).integers(0, top, shape, endpoint=True)
    return drawn.astype(dtype)


def test_a_colour_picture_comes_back_pixel_for_pixel(tmp_path):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    for path in tmp_path / 'a.png', str(tmp_path / 'a.png'):
        image = open_image(path)
        assert image.mode == 'RGB'
        assert np.array_equal(np.asarray(image), pixels)


def test_a_grey_picture_has_three_equal_channels():
    pixels = noise(5, 7)
    image = np.asarray(open_image(saved(Image.fromarray(pixels))))
    assert (image == pixels[:, :, None]).all()


def test_a_one_bit_picture_is_black_and_white():
    image = Image.fromarray(noise(8, 8) > 127)
    values = np.unique(np.asarray(open_image(saved(image))))
    assert values.tolist() == [0, 255]


def test_a_palette_picture_has_the_colours_of_its_palette():
    image = Image.new('P', (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    pixels = np.asarray(open_image(saved(image)))
    assert pixels.tolist() == [[[10, 20, 30], [200, 100, 0]]]


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA', 'P', 'L', 'RGB'])
def test_what_is_transparent_shows_white(mode):
    options = {}
    if mode in ('P', 'L', 'RGB'):
        image = Image.new(mode, (3, 2), 0)
        options['transparency'] = (0, 0, 0) if mode == 'RGB' else 0
    else:
        image = Image.new('RGBA', (3, 2), (0, 0, 0, 0)).convert(mode)
    kind = 'TIFF' if mode == 'PA' else 'PNG'
    if mode == 'PA':
        pytest.importorskip('PIL.TiffImagePlugin')
    pixels = np.asarray(open_image(saved(image, kind, **options)))
    assert (pixels == 255).all()


def test_what_is_half_transparent_is_half_white():
    image = Image.new('RGBA', (1, 1), (0, 100, 200, 128))
    pixel = open_image(saved(image)).getpixel((0, 0))
    assert np.allclose(pixel, [127, 177, 227], atol=1)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM'])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    image = open_image(saved(Image.fromarray(values), kind))
    assert image.mode == 'RGB'
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize('top', [255, 4095])
def test_fewer_bits_kept_in_sixteen_are_no_night(top):
    values = np.array([[0, top // 2, top]], np.uint16)
    pixels = np.asarray(open_image(saved(Image.fromarray(values), 'PNG')))
    assert pixels[0, :, 0].tolist() == pytest.approx([0, 127, 255], abs=1)


def test_big_endian_sixteen_bits_are_read_alike():
    file = io.BytesIO(b'P5 2 1 65535\n' + struct.pack('>2H', 256, 65535))
    assert np.asarray(open_image(file))[0, :, 0].tolist() == [1, 255]


def test_sixteen_bit_colour_is_read_as_eight():
    values = noise(2, 3, 3, top=65535, dtype=np.uint16)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    pixels = np.asarray(open_image(io.BytesIO(png(3, 2, 16, 2, rows))))
    assert np.abs(pixels - values / 257).max() <= 1


@pytest.mark.parametrize('top', [1, 255, 65535])
def test_floating_point_grey_is_scaled_by_its_range(top):
    values = np.array([[0, top / 2, top]], np.float32)
    pixels = np.asarray(open_image(saved(Image.fromarray(values), 'TIFF')))
    assert pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize('value', [-1, 1e9, float('nan'), float('inf')])
def test_grey_values_beyond_any_range_are_refused(value):
    file = saved(Image.fromarray(np.array([[0, value]], np.float32)), 'TIFF')
    with pytest.raises(ValueError, match='grey values run from'):
        open_image(file)


def test_a_picture_for_print_becomes_rgb():
    image = Image.new('CMYK', (8, 8), (0, 0, 255, 0))  # yellow ink alone
    red, green, blue = open_image(saved(image, 'TIFF')).getpixel((0, 0))
    assert (red > 200, green > 200, blue < 60) == (True, True, True)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(orientation):
    upright = noise(4, 6, 3)
    # How the camera stored it, for each orientation of the EXIF standard.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1],
        4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    pixels = np.asarray(open_image(saved(image, exif=exif)))
    assert np.array_equal(pixels, upright)


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
def test_broken_exif_data_do_not_lose_the_picture():
    image = Image.fromarray(noise(4, 6, 3))
    file = saved(image, 'JPEG', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff')
    assert open_image(file).size == (6, 4)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    file = saved(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    assert open_image(file).getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_of_one_pixel_works():
    image = open_image(saved(Image.new('RGB', (1, 1), (1, 2, 3))))
    assert image.getpixel((0, 0)) == (1, 2, 3)
    square = pictures.to_square(image)
    assert square.shape == (3, 256, 256)
    assert (square == np.array([1, 2, 3])[:, None, None]).all()


def png(width, height, depth=8, kind=2, rows=b''):
    """A PNG file made by hand, so that it may lie about itself."""
    def chunk(name, data):
        return (struct.pack('>I', len(data)) + name + data
                + struct.pack('>I', zlib.crc32(name + data)))

    head = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


@pytest.mark.fault('a picture is huge, cut short, none, or a program')
@pytest.mark.parametrize(('width', 'height'), [
    (30_000, 30_000), (13_000, 9_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings('error')
def test_a_picture_of_too_many_pixels_is_refused_with_both_numbers(
        tmp_path, width, height):
    (tmp_path / 'huge.png').write_bytes(png(width, height))
    with pytest.raises(ValueError, match='huge.png') as caught:
        open_image(tmp_path / 'huge.png')
    assert f'{width * height:,}' in str(caught.value)
    assert f'{pictures.MAX_PIXELS:,}' in str(caught.value)


@pytest.mark.parametrize('size', [(0, 0), (0, 5), (5, 0)])
def test_a_picture_of_no_pixels_is_refused(size):
    with pytest.raises(ValueError, match='picture'):
        open_image(io.BytesIO(png(*size)))


@pytest.mark.fault('a picture is huge, cut short, none, or a program')
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'WEBP', 'TIFF'])
def test_a_truncated_picture_is_refused_by_name(tmp_path, kind):
    data = saved(Image.fromarray(noise(64, 64, 3)), kind).getvalue()
    path = tmp_path / 'cut.dat'
    path.write_bytes(data[:len(data) * 2 // 3])
    with pytest.raises(ValueError, match='cut.dat: '):
        open_image(path)


@pytest.mark.fault('a picture is huge, cut short, none, or a program')
@pytest.mark.parametrize(('data', 'what'), [
    (b'', 'an empty file'),
    (b'%PDF-1.7 ...', 'a PDF document'),
    (b'<!DOCTYPE html><p>404', 'a web page'),
    (b'PK\x03\x04rest', 'a ZIP archive'),
    (b'img_name,label', "text that begins with 'img_name,label'"),
    (b'\xc3\xa4' * 40, 'text that begins with'),
    (b'\0\0\0\x18ftypmp42' + bytes(40), 'a movie'),
    (b'\0\0\0\x14ftypqt  ' + bytes(40), 'a movie'),
    (b'\0\0\0\x20ftypisom' + bytes(40), 'a movie'),
    (bytes(range(128, 200)), 'bytes 80 81 82'),
])
def test_what_is_no_picture_is_called_by_its_name(tmp_path, data, what):
    path = tmp_path / 'banana.png'
    path.write_bytes(data)
    with pytest.raises(ValueError, match='not a picture') as caught:
        open_image(path)
    assert str(path) in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize('brand', ['heic', 'heix', 'hevc', 'mif1', 'msf1'])
def test_a_photograph_as_telephones_keep_it_is_called_that(tmp_path, brand):
    path = tmp_path / 'IMG_0.jpg'
    path.write_bytes(b'\0\0\0\x24ftyp' + brand.encode()
                     + b'\0\0\0\0mif1heic' + bytes(40))
    with pytest.raises(ValueError, match='IMG_0.jpg: a HEIC photograph; '
                       'save it as JPEG or PNG first'):
        open_image(path)


@pytest.mark.fault('a picture is huge, cut short, none, or a program')
def test_a_postscript_file_is_never_run(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
                     b'%%EndComments\nshowpage\n%%EOF\n')
    with pytest.raises(ValueError, match='PostScript'):
        open_image(path)


@pytest.mark.fault('a picture is huge, cut short, none, or a program')
def test_nor_is_one_in_a_picture_of_news_agencies(tmp_path, monkeypatch):
    """Pillow hands what lies in an IPTC file on to any of its readers."""
    def field(record, number, data):
        return struct.pack('>BBBH', 28, record, number, len(data)) + data

    monkeypatch.setattr(subprocess, 'Popen',
                        lambda *a, **b: pytest.fail('a program was run'))
    program = (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
               b'%%EndComments\nshowpage\n%%EOF\n')
    path = tmp_path / 'photo.jpg'
    path.write_bytes(field(3, 60, b'\1\0') + field(3, 20, b'\0\11')
                     + field(3, 30, b'\0\11') + field(3, 120, b'\5')
                     + field(8, 10, program))
    with pytest.raises(ValueError, match='photo.jpg: not a picture'):
        open_image(path)
    with (Image.open(path) as opened,
          pytest.raises(ValueError, match='PostScript')):
        pictures.to_rgb(opened)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'WEBP', 'TIFF', 'BMP',
                                  'PPM', 'TGA', 'PCX', 'JPEG2000', 'ICO'])
def test_pictures_of_many_kinds_are_opened(kind):
    image = Image.new('RGB', (16, 16), (240, 200, 40))
    pixel = open_image(saved(image, kind)).getpixel((8, 8))
    assert np.abs(np.subtract(pixel, (240, 200, 40))).max() < 8


@pytest.mark.fault('memory runs out')
def test_too_little_memory_is_said_with_the_size(monkeypatch):
    def none(*arguments):
        raise MemoryError
    monkeypatch.setattr(pictures, '_to_rgb', none)
    with pytest.raises(ValueError, match='picture: too little memory for a '
                       'picture of 6×4 pixels'):
        open_image(saved(Image.new('RGB', (6, 4))))


def test_a_missing_picture_and_a_folder_are_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.png'):
        open_image(tmp_path / 'no.png')
    with pytest.raises(OSError, match='tmp|Permission|directory'):
        open_image(tmp_path)


def test_a_file_without_a_name_can_be_given_one():
    with pytest.raises(ValueError, match='^kitchen: not a picture'):
        open_image(io.BytesIO(b'no'), 'kitchen')
    with pytest.raises(ValueError, match='^picture: not a picture'):
        open_image(io.BytesIO(b'no'))


@pytest.mark.parametrize('name', ['a.png', 'B.JPG', 'c.d.jpeg', 'é.webp'])
def test_picture_files_are_known_by_their_suffix(name):
    assert pictures.is_picture_name(name)


@pytest.mark.parametrize('name', ['.a.png', 'Thumbs.db', 'png', 'a.eps', ''])
def test_other_files_are_passed_over(name):
    assert not pictures.is_picture_name(name)


SEEDS = [saved(Image.new('RGB', (9, 5), 'gold'), kind).getvalue()
         for kind in ('PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM')]


@pytest.mark.fault('a file holds anything at all')
@pytest.mark.filterwarnings('ignore')
@given(data=st.data())
def test_a_garbled_picture_is_a_picture_or_a_value_error(data):
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    place = st.integers(0, len(content) - 1)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(place)] = data.draw(st.integers(0, 255))
    try:
        image = open_image(io.BytesIO(content[:data.draw(
            st.integers(0, len(content)) | st.just(len(content)))]))
    except ValueError:
        return
    assert image.mode == 'RGB'
