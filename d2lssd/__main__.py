"""The commands: python -m d2lssd train, evaluate, predict, data, export."""
import argparse
import contextlib
import glob
import json
import os
import sys
import warnings
from pathlib import Path

import d2lssd
from d2lssd.data.files import one_line

SHEET = 24  # pictures on the contact sheet of a folder


def main(argv=None):
    """Run one command; return its exit status."""
    for name in 'stdout', 'stderr':
        if getattr(sys, name) is None:  # closed by who started this
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115
    if hasattr(sys.stdout, 'reconfigure'):  # not so in a notebook
        # A name that the terminal has no letters for stops nothing.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        args = build_parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.showwarning = one_warning()
            status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        print(f'd2lssd: {str(stop) or "stopped"}', file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except (OSError, ValueError, FloatingPointError,
            ModuleNotFoundError) as error:
        print(f'd2lssd: {describe(error)}', file=sys.stderr)
        return 2
    except MemoryError as error:
        print('d2lssd: too little memory for so many or so large pictures '
              f'({describe(error)})', file=sys.stderr)
        return 2
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # at its end Python would fail once more
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_warning():
    """A way to show warnings: a line each, and none twice."""
    shown = set()

    def show(message, *place, **more):
        if str(message) not in shown:
            shown.add(str(message))
            print(f'd2lssd: {one_line(message)}', file=sys.stderr)
    return show


def describe(error):
    """A line that says why, or one for each problem of many."""
    if hasattr(error, 'lines'):
        return '\n  '.join(map(one_line, error.lines))
    text = ' '.join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return one_line(text)


def build_parser():
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='python -m d2lssd',
        description='Find bananas with a small detector, or train it to find '
        'what you like.')
    parser.add_argument('--version', action='version',
                        version=d2lssd.__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def command(name, run, help, **texts):
        sub = commands.add_parser(name, help=help, description=help, **texts)
        sub.set_defaults(run=run)
        return sub

    sub = command('predict', run_predict, 'Find bananas on pictures, or what '
                  'the weights were trained to find.', epilog='A box is '
                  'printed as its left, top, right and bottom side, in pixels '
                  'of the picture.')
    sub.add_argument('images', type=filled, nargs='+', metavar='IMAGE',
                     help="a picture, of any size and format; a folder of "
                     "them; or a pattern, such as 'photos/*.jpg'")
    sub.add_argument('--threshold', type=probability, default=0.5,
                     help='least score of a detection (default: 0.5)')
    add_weights(sub)
    sub.add_argument('--no-tiles', dest='tiles', action='store_false',
                     help='do not look for small ones on enlarged parts: '
                     'faster')
    sub.add_argument('--no-voting', dest='voting', action='store_false',
                     help='do not place a box by all that were found with it, '
                     "nor ask the judge ('wild', 'clear' and 'plain' have "
                     'one)')
    sub.add_argument('--json', action='store_true',
                     help='print one JSON object an image')
    sub.add_argument('--save', type=filled, metavar='OUT.png',
                     help='save the picture with its boxes; of several '
                     'pictures, number n as OUT-n.png')

    sub = command('train', run_train, 'Train a detector on bananas, or on '
                  'your own pictures.')
    sub.add_argument('--recipe', help="'balanced' (default), 'source', "
                     "'own' (default for a folder), or 'varied', 'finer', "
                     "'fitted', 'odd', 'worn', 'wild', 'heaped', 'clear', "
                     "'touching', 'crowded' and 'plain', which go on from "
                     "'balanced': see `make weights`")
    sub.add_argument('--weights', type=filled,
                     metavar='FILE', help='what to start from: a '
                     "file that `train` wrote; 'wild' (default for a folder), "
                     "'plain', 'clear', 'balanced' or 'source', which are "
                     "shipped; or 'none' (default otherwise)")
    sub.add_argument('--epochs', type=whole, metavar='N',
                     help="instead of the recipe's own number")
    sub.add_argument('--batch-size', type=whole, metavar='N',
                     help="pictures a step, instead of the recipe's own "
                     'number')
    sub.add_argument('--lr', type=between(float, 1e-9, 1000),
                     help='greatest learning rate')
    sub.add_argument('--seed', type=between(int, 0, 2**32 - 1), default=0,
                     metavar='N', help='of weights, drawing and order '
                     '(default: 0)')
    add_source(sub)
    sub.add_argument('--save', type=filled, metavar='FILE.safetensors',
                     help='write the weights there, and what is known of '
                     'them beside, as FILE.json '
                     '(default: where the book looks for them; those of a '
                     'folder NAME into NAME.safetensors)')
    sub.add_argument('--checkpoint', type=filled,
                     metavar='FILE', help='save there after '
                     'each epoch; go on from there if it exists '
                     '(default: beside the weights)')
    sub.add_argument('--precision', type=probability, metavar='P',
                     help='at the end, shift the scores until, from 0.5 on, '
                     'this share of the detections on other drawn training '
                     'pictures is right')
    sub.add_argument('--judge', nargs='?', const=True, type=probability,
                     metavar='P', help='at the end, teach a judge, which '
                     'looks at each box once more and scores it in place of '
                     'its anchor, from 12 000 other drawn training pictures, '
                     'a third of them without bananas; with P, shift its '
                     'scores as --precision does those of the anchors')
    sub.add_argument('--exam', action='store_true',
                     help='measure at the end, as `evaluate` does; a folder '
                     'is always measured')
    sub.add_argument('--json', action='store_true',
                     help='print one JSON object: recipe, history and what '
                     'was measured')

    sub = command('evaluate', run_evaluate,
                  'Measure a detector: average precision, precision, recall.')
    add_weights(sub)
    add_source(sub)
    sub.add_argument('--count', type=whole, metavar='N',
                     help='drawn pictures an exam (default: 500, which are '
                     'kept and take 700 MB); of other sources, all '
                     'validation pictures are taken: those in val, or a fifth '
                     'of a folder that is not divided')
    sub.add_argument('--tiles', action='store_true', help='look at enlarged '
                     'parts of each picture, too, nearly as `predict` does: '
                     'that cuts them from the picture as it is, this from '
                     'its 256 x 256 pixels')
    sub.add_argument('--no-voting', dest='voting', action='store_false',
                     help='do not place a box by all that were found with it, '
                     "nor ask the judge ('wild', 'clear' and 'plain' have "
                     'one)')
    sub.add_argument('--json', action='store_true',
                     help='print one JSON object')

    sub = command('data', run_data, 'Draw or fetch the pictures, and say '
                  'where they are; or check your own.')
    add_source(sub)
    sub.add_argument('--sheet', metavar='OUT.png',
                     help='save the first pictures with their boxes')
    sub.add_argument('--json', action='store_true',
                     help='print one JSON object')
    add_check(sub.add_subparsers(metavar='[check FOLDER]'))

    sub = command('export', run_export, 'Write a network as an ONNX file, '
                  'which runs without PyTorch, and check it.')
    add_weights(sub)
    sub.add_argument('--output', type=filled,
                     metavar='FILE', default='model.onnx',
                     help='write it there (default: model.onnx)')
    sub.add_argument('--judge', type=filled,
                     metavar='FILE', help='write its judge, too '
                     "('wild', 'clear' and 'plain' have one)")
    sub.add_argument('--json', action='store_true',
                     help='print one JSON object')
    return parser


def add_check(commands):
    text = 'Report every bad label of a folder of your own pictures.'
    sub = commands.add_parser(
        'check', help=text, description=text, epilog='Exit status: 0 if all '
        'is well, 2 if there are problems.')
    sub.set_defaults(run=run_check)
    sub.add_argument('folder', metavar='FOLDER', help='holds images and '
                     'label.csv or annotations.json (COCO), or train and '
                     'val, each with these')
    # Not given here, it stays what it was before the word check.
    sub.add_argument('--sheet', metavar='OUT.png', default=argparse.SUPPRESS,
                     help=f'save up to {SHEET} pictures with their boxes')
    sub.add_argument('--json', action='store_true', default=argparse.SUPPRESS,
                     help='print one JSON object')


def add_weights(sub):
    sub.add_argument('--weights', type=filled, metavar='FILE', default='wild',
                     help="a file that `train` wrote, or the name of shipped "
                     "weights: 'wild' (default, for real pictures), 'plain' "
                     "(for pictures like the data set's), 'clear' (the same, "
                     "but bananas of all sizes), 'balanced' or 'source'")


def add_source(sub):
    sub.add_argument('--source', type=filled,
                     default='drawn', metavar='SOURCE',
                     help="'drawn' (default), 'd2l' for the original archive, "
                     'or a folder with images and label.csv or '
                     'annotations.json')


def between(kind, least, most):
    """A reader of numbers from ``least`` to ``most``, for an argument."""
    word = 'a whole number' if kind is int else 'a number'

    def read(text):
        try:
            value = kind(text)
        except ValueError:
            value = float('nan')
        if not least <= value <= most:  # nor is NaN
            raise argparse.ArgumentTypeError(
                f'{text!r} is not {word} from {least} to {most}')
        return value
    return read


def filled(text):
    """A name of a file or something else, for an argument."""
    if not text:
        raise argparse.ArgumentTypeError('it is empty')
    return text


probability = between(float, 0, 1)
whole = between(int, 1, 10**6)


def find_net(name):
    """The network of a weights file, or of a name of shipped weights."""
    from d2lssd.prediction import SHIPPED, load_pretrained, load_weights
    if (SHIPPED / f'{name}.safetensors').exists() and os.sep not in name:
        return load_pretrained(name)
    try:
        return load_weights(name)
    except FileNotFoundError as error:
        known = sorted(path.stem for path in SHIPPED.glob('*.safetensors'))
        raise FileNotFoundError(
            error.errno, 'no such file; shipped are the weights '
            f'{", ".join(known)}', name) from error


def run_predict(args):
    """Detect, image by image; go on after one that cannot be read."""
    from d2lssd.classes import classes_of
    from d2lssd.data import BANANA_CLASSES
    from d2lssd.data.pictures import open_image
    from d2lssd.memory import keep_memory
    from d2lssd.prediction import detect, save_picture
    keep_memory()
    net, status, images = find_net(args.weights), 0, []
    for name in args.images:
        try:
            images += pictures_of(name)
        except (OSError, ValueError) as error:
            print(f'd2lssd: {describe(error)}', file=sys.stderr)
            status = 2
    outs = outputs_of(args.save, images)
    word = 'banana' if classes_of(net) == BANANA_CLASSES else 'object'
    for image, out in zip(images, outs):
        try:
            picture = open_image(image)
            found = detect(picture, net, args.threshold, tiles=args.tiles,
                           voting=args.voting)
            if args.json:
                print(json.dumps({
                    'image': image, 'width': picture.width,
                    'height': picture.height, 'detections': found}))
            else:
                print(f'{one_line(image)}: {several(len(found), word)}')
                for row in found:
                    print(f'  {one_line(row["label"])} {row["score"]:.2f} at '
                          + ' '.join(f'{v:g}' for v in row['box']))
            if out:
                save_picture(picture, found, out)
                if not args.json:
                    print(f'  drawn in {one_line(out)}')
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads on
            raise
        except (OSError, ValueError) as error:
            print(f'd2lssd: {describe(error)}', file=sys.stderr)
            status = 2
    return status


def pictures_of(name):
    """The pictures that a name stands for: a folder's, or those that fit a
    pattern, which not every terminal puts in its place; else itself."""
    from d2lssd.data.labels import natural, some
    from d2lssd.data.pictures import is_picture_name
    if not os.path.isdir(name):
        found = [] if os.path.exists(name) else glob.glob(name)
        return sorted(found, key=natural) or [name]
    files = sorted((path.name for path in Path(name).iterdir()
                    if path.is_file() and not path.name.startswith('.')),
                   key=natural)
    found = [file for file in files if is_picture_name(file)]
    others = [file for file in files if not is_picture_name(file)]
    if not found:
        raise ValueError(f'{name}: no picture of a known kind in this folder'
                         + f', but {some(others)}' * bool(others))
    if others:
        print(f'd2lssd: {one_line(name)}: {len(others)} left out, no pictures '
              f'of a known kind: {one_line(some(others))}', file=sys.stderr)
    return [str(Path(name) / file) for file in found]


def outputs_of(save, images):
    """Where the pictures with boxes go; None for each where nowhere."""
    from d2lssd.prediction import check_ending
    if save is None:
        return [None] * len(images)
    out = Path(save)
    check_ending(out)
    outs = [out] if len(images) == 1 else [
        out.with_stem(f'{out.stem}-{i + 1}') for i in range(len(images))]
    inputs = {file_of(image) for image in images}
    for out in outs:
        if out.exists() and file_of(out) in inputs:
            raise ValueError(f'--save {save}: {out} is one of the pictures '
                             'that are looked at, and would be lost; give it '
                             'another name')
    return outs


def file_of(path):
    """What is the same for all names of one file; None if there is none."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def is_folder(source):
    """Whether a source is a folder of one's own, and no name of ours."""
    return source not in ('drawn', 'd2l')


def run_train(args):
    """Train, and write weights and card."""
    from torch.utils.data import DataLoader

    from d2lssd.data import BananasDataset
    from d2lssd.data.files import check_writable
    from d2lssd.distributed import on_this_machine, rank
    from d2lssd.judge import teach_judge
    from d2lssd.prediction import (
        load_weights,
        refuse_stranger,
        save_weights,
        trained_weights,
        weights_path,
    )
    from d2lssd.training import (
        describe_run,
        find_recipe,
        judge_pictures,
        train,
    )
    changes = {'num_epochs': args.epochs, 'batch_size': args.batch_size,
               'lr': args.lr}
    own = is_folder(args.source)
    if args.precision and args.source != 'drawn':
        raise ValueError('--precision: the point is chosen on drawn bananas; '
                         'for other pictures use `d2lssd.set_operating_point` '
                         'in Python')
    if args.judge and args.source != 'drawn':
        raise ValueError('--judge: it learns from drawn bananas; for other '
                         'pictures use `d2lssd.teach_judge` in Python')
    recipe = find_recipe(args.recipe or ('own' if own else 'balanced'), **{
        key: value for key, value in changes.items() if value is not None})
    start = args.weights or ('wild' if own else 'none')
    net = None if start == 'none' else find_net(start)
    # A folder's weights stay away from where the book keeps its own.
    out = weights_path(args.save or (
        f'{Path(args.source).resolve().name}.safetensors' if own
        else trained_weights()))
    checkpoint = Path(args.checkpoint or out.with_suffix('.checkpoint'))
    if checkpoint.resolve() in (out.resolve(),
                                out.with_suffix('.json').resolve()):
        raise ValueError(f'--checkpoint {checkpoint}: the results go there; '
                         'give it another name')
    refuse_stranger(out)
    check_writable(out)
    _, place = on_this_machine()
    if out.exists() and not checkpoint.exists() and place == 0:
        print(f'{out}: will be replaced when the training is done; --save '
              'names another file', file=sys.stderr)
    # What is measured at the end is read now: a fault in it costs no training.
    pictures = BananasDataset(False, args.source) if own else None
    net, history = train(recipe, net, args.source, args.seed,
                         checkpoint=checkpoint)
    if rank() > 0:  # the first process writes for all
        return
    card = {**describe_run(recipe, args.seed, args.source),
            'start': Path(start).name, 'history': history}
    save_weights(net, out, card)
    if args.precision:
        card['operating point'] = choose_point(
            net, recipe, args.seed, args.precision, '--precision', out)
        save_weights(net, out, card)
    if args.judge:
        try:
            card['judge'] = teach_judge(
                net, DataLoader(judge_pictures(recipe, args.seed), 50),
                args.seed, progress=True)
        except ValueError as error:
            raise ValueError(f'--judge: {error}; the weights are in {out}, '
                             'without a judge') from error
        save_weights(net, out, card)
        if args.judge is not True:
            card['judge']['operating point'] = choose_point(
                net, recipe, args.seed, args.judge, '--judge', out)
            save_weights(net, out, card)
    if args.exam or own:  # measured is what was written, in half precision
        written = load_weights(out)
        card['exams'] = measure(written, args.source, pictures=pictures)
        if not own:
            card['exams with tiles'] = measure(  # ten looks a picture
                written, args.source, 200, tiles=True)
        save_weights(net, out, card)
    if not args.checkpoint:  # the next run is another one
        checkpoint.unlink(missing_ok=True)
    if args.json:
        print(json.dumps(card))
        return
    last = history[-1]
    print(f'{out}: {several(len(history), "epoch")}, class error '
          f'{last["class error"]:.2e}, box MAE {last["bbox mae"]:.2e}')
    if args.exam or own:
        print_results(card['exams'])
        print_looks(own)
    if 'exams with tiles' in card:
        print('with a second look, at enlarged parts:')
        print_results(card['exams with tiles'])


def choose_point(net, recipe, seed, precision, option, path):
    """Set the operating point of weights that have been saved."""
    from torch.utils.data import DataLoader

    from d2lssd.evaluation import set_operating_point
    from d2lssd.training import other_pictures
    try:
        return set_operating_point(
            net, DataLoader(other_pictures(recipe, seed), 50), precision,
            progress=True)
    except ValueError as error:
        raise ValueError(f'{option}: {error}; the weights are in {path}, '
                         'scores as they were learnt') from error


def run_evaluate(args):
    """Measure on the exams, or on the validation pictures of a source."""
    if args.count and args.source != 'drawn':
        raise ValueError('--count: for drawn pictures only; of others, all '
                         'that are for validation count')
    results = measure(find_net(args.weights), args.source, args.count,
                      args.tiles, args.voting)
    if args.json:
        print(json.dumps({'weights': args.weights, 'exams': results}))
    else:
        print_results(results)
        print_looks(is_folder(args.source) and not args.tiles)


def print_looks(wanted):
    """Say how this was measured, to who looks for small objects of theirs."""
    if wanted:
        print('measured with one look at each picture; `predict` takes a '
              'second one, from nearer, and\nfinds more small objects: with '
              'evaluate --tiles they count')


def measure(net, source, count=None, tiles=False, voting=True, pictures=None):
    """Results of `evaluate`, by the name of the exam or source.

    Args:
        net, tiles, voting: as for `evaluate`.
        source: of the pictures; drawn ones are those of the exams.
        count: drawn pictures an exam; None for `EXAM_PICTURES`.
        pictures: those of another source, if they were read before.
    """
    from torch.utils.data import DataLoader

    from d2lssd.classes import check_classes
    from d2lssd.data import BananasDataset
    from d2lssd.evaluation import EXAM_PICTURES, evaluate, examine
    from d2lssd.training import try_gpu
    net.to(try_gpu())
    if pictures is None:
        classes = check_classes(net, source)
        if source == 'drawn':
            return examine(net, count=count or EXAM_PICTURES, progress=True,
                           tiles=tiles, voting=voting)
        options = {'classes': classes} if is_folder(source) else {}
        pictures = BananasDataset(False, source, **options)
    return {source: evaluate(net, DataLoader(pictures, 50), progress=True,
                             tiles=tiles, voting=voting)}


MEASURES = {  # what `evaluate` gives, in words
    'AP_small': 'AP, small objects', 'AP_medium': 'AP, medium objects',
    'AP_large': 'AP, large objects', 'recall': 'recall, IoU 0.50 to 0.95',
    'precision': 'precision at score 0.5', 'recall_at': 'recall at score 0.5',
    'false_alarms': 'pictures with false alarm'}


def print_results(results):
    """Print the numbers of exams, four side by side, then those by class."""
    by_class = {name: result.get('by_class', {})
                for name, result in results.items()}
    results = {name: {key: value for key, value in result.items()
                      if key != 'by_class'}
               for name, result in results.items()}
    names = list(results)
    for some in [names[i:i + 4] for i in range(0, len(names), 4)]:
        print(f'{"":26}' + ''.join(f'{one_line(name)[-12:]:>13}'
                                   for name in some))
        for key in results[some[0]]:
            values = [results[name][key] for name in some]
            print(f'{MEASURES.get(key, key):26}' + ''.join(
                f'{value:13.3f}' if isinstance(value, float)
                else f'{"-" if value is None else value:>13}'
                for value in values))
    for name, scores in by_class.items():
        for kind, score in scores.items():
            score = '-' if score is None else f'{score:.4g}'
            print(f'{one_line(name)}, {one_line(kind)}: AP {score}')


def run_export(args):
    """Export, and say how near the files come to PyTorch."""
    from d2lssd.data.files import check_writable
    from d2lssd.export import export_judge, export_onnx
    from d2lssd.model import judge_of
    for option, name in ('--output', args.output), ('--judge', args.judge):
        if name and Path(name).suffix.lower() != '.onnx':
            raise ValueError(f'{option} {name}: name it .onnx')
    if args.judge and Path(args.judge).resolve() == Path(
            args.output).resolve():
        raise ValueError(f'--judge {args.judge}: the network goes there; give '
                         'it another name')
    net = find_net(args.weights)
    if args.judge and not judge_of(net):
        raise ValueError(f'--judge: {args.weights} has no judge; it can be '
                         'exported without')
    for name in filter(None, (args.output, args.judge)):
        check_writable(Path(name))
    facts = {'file': args.output, **export_onnx(net, args.output)}
    if args.judge:
        facts['judge'] = {'file': args.judge, **export_judge(net, args.judge)}
    if args.json:
        print(json.dumps(facts))
        return
    for some in filter(None, (facts, facts.get('judge'))):
        print(f'{some["file"]}: {some["bytes"] / 1e6:.1f} MB, at most '
              f'{some["difference"]:.0e} from PyTorch')


def run_data(args):
    """Make sure that the pictures are there, and describe them."""
    from d2lssd.data import BananasDataset
    from d2lssd.data.drawing import SIDE
    from d2lssd.data.files import cache_folder
    own = is_folder(args.source)
    splits = {name: BananasDataset(is_train, args.source)
              for name, is_train in (('train', True), ('val', False))}
    facts = {'source': args.source,
             'folder': str(args.source if own else cache_folder())}
    for name, split in splits.items():
        boxes = split.labels[split.labels[..., 0] >= 0]
        size = (boxes[:, 3:] - boxes[:, 1:3]) * SIDE
        facts[name] = {
            'pictures': len(split), 'boxes': len(boxes), 'mean_size':
            [round(v, 1) for v in size.mean(0).tolist()] if len(boxes)
            else None}
    if args.sheet:
        save_sheet(splits['train'], args.sheet)
    if args.json:
        print(json.dumps(facts))
        return
    for name in splits:
        f = facts[name]
        size = ('' if f['mean_size'] is None else ', mean size {}×{} of {} '
                'pixels'.format(*f['mean_size'], SIDE))
        print(f'{name}: {f["pictures"]} pictures, {f["boxes"]} boxes{size}')
    print(f'{"read from" if own else "kept in"} {one_line(facts["folder"])}')


def save_sheet(pictures, path, rows=4, columns=6):
    """Save the first pictures, with their boxes, as one."""
    from d2lssd.data.drawing import SIDE
    from d2lssd.plotting import show_bboxes, show_images
    images, labels = pictures[:rows * columns]
    with saving_figure(path):
        axes = show_images(images, rows, columns, scale=2)
        for ax, label in zip(axes, labels, strict=False):
            show_bboxes(ax, label[label[:, 0] >= 0, 1:] * SIDE, colors='w')


@contextlib.contextmanager
def saving_figure(path):
    """Save the figure that is drawn inside, whole or not at all."""
    from d2lssd.data.files import replacing
    from d2lssd.data.folder import READERS
    from d2lssd.plotting import plt
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in ('.png', '.jpg', '.pdf', '.svg'):
        raise ValueError(f'{path}: name it .png, .jpg, .pdf or .svg')
    folder = path.resolve().parent
    if folder.name == 'images' and any(
            (folder.parent / reader.NAME).exists() for reader in READERS):
        raise ValueError(f'{path}: lies among the pictures; save it elsewhere')
    try:
        yield
        with replacing(path) as temporary:
            plt.savefig(temporary, format=kind[1:], dpi=110)
    finally:
        plt.close()


def run_check(args):
    """Report what is wrong in a folder, and what is in it."""
    from d2lssd.data.folder import survey_folder
    if args.source != 'drawn':
        raise ValueError(f'--source {args.source}: check looks at '
                         f'{args.folder} alone; leave --source out')
    survey = survey_folder(args.folder, progress=True)
    problems = survey.problems + survey.gaps
    facts = {'folder': args.folder, **count_folder(survey)}
    if args.json:
        print(json.dumps({**facts, 'notes': survey.notes, 'problems': [
            {'file': each.file, 'line': each.line or None,
             'path': each.path or None, 'text': each.text}
            for each in problems]}))
    else:
        for problem in problems:
            print(one_line(problem))
        for note in survey.notes:
            print(f'note: {one_line(note)}')
        print_folder(facts, len(problems))
    if args.sheet:
        save_labelled(survey, args.sheet)
    return 2 if problems else 0


def count_folder(survey):
    """Numbers of pictures, boxes and classes, in all and by the split that
    training has them in; sizes in pixels, each (width, height), or None if
    there are none."""
    from collections import Counter

    import numpy as np
    boxes = np.concatenate([np.empty((0, 4)), *(
        each.boxes for each in survey.pictures)])
    with np.errstate(invalid='ignore'):  # an infinite box was complained of
        sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides[(sides > 0).all(1) & np.isfinite(sides).all(1)]
    sizes = {'picture': [each.size for each in survey.pictures if each.size],
             'box': sides}
    facts = {'pictures': len(survey.pictures), 'boxes': len(boxes),
             'empty': sum(not each.classes for each in survey.pictures),
             'splits': {}, 'split_classes': {}}
    for split in 'train', 'val':
        some = [each for each in survey.pictures if each.split == split]
        count = Counter(number for each in some for number in each.classes)
        facts['splits'][split] = len(some)
        facts['split_classes'][split] = {
            name: count[i] for i, name in enumerate(survey.classes)}
    facts['classes'] = {
        name: sum(count[name] for count in facts['split_classes'].values())
        for name in survey.classes}
    for name, values in sizes.items():
        facts[f'{name}_sizes'] = None if not len(values) else {
            word: [round(v, 1) for v in np.quantile(values, q, axis=0)
                   .tolist()]
            for word, q in (('least', 0), ('median', 0.5), ('most', 1))}
    return facts


def print_folder(facts, count):
    """Print what `count_folder` counted, and the number of problems."""
    print(f'{one_line(facts["folder"])}: '
          f'{several(facts["pictures"], "picture")}, '
          f'{facts["empty"] or "none"} without a box; '
          f'{several(facts["boxes"], "box")}')
    if facts['pictures']:
        print('splits: ' + ', '.join(
            f'{name} {n}' for name, n in facts['splits'].items()))
    for name in 'picture', 'box':
        sizes = facts[f'{name}_sizes']
        if sizes:
            print(f'{name} sizes: ' + ', '.join(
                '{} {:g}×{:g}'.format(word, *size)
                for word, size in sizes.items()) + ' pixels')
    if facts['boxes']:
        print('classes: ' + ', '.join(
            f'{one_line(name)} {n} (' + ', '.join(
                f'{split} {count[name]}'
                for split, count in facts['split_classes'].items()) + ')'
            for name, n in facts['classes'].items()))
    print(several(count, 'problem'))


def several(number, word):
    ending = 'es' if word.endswith('x') else 's'
    return f'{number or "no"} {word}{ending * (number != 1)}'


def save_labelled(survey, path):
    """Save up to SHEET pictures of a folder, spread over all of it, with
    their boxes, one colour a class."""
    from d2lssd.data.pictures import open_image
    from d2lssd.plotting import COLORS, show_bboxes, show_images
    pictures = [each for each in survey.pictures if each.size]
    if not pictures:
        raise ValueError(f'{path}: not written, for there is no picture')
    count = min(SHEET, len(pictures))
    chosen = [pictures[i * len(pictures) // count] for i in range(count)]
    columns = round((1.5 * count)**0.5)  # about as wide as a screen
    thumbs = []
    for picture in chosen:
        thumbs.append(open_image(picture.path))
        thumbs[-1].thumbnail((320, 320))
    with saving_figure(path):
        axes = show_images(thumbs, -(-count // columns), columns, scale=2.4)
        for ax, thumb, picture in zip(axes, thumbs, chosen):
            # Below, where no class name hides it.
            ax.set_title(plain(picture.path.name), y=0, pad=-4, va='top',
                         fontsize=7, parse_math=False)
            scale = [a / b for a, b in zip(thumb.size, picture.size)]
            numbers = picture.classes
            show_bboxes(
                ax, (picture.boxes * (scale * 2)).clip(-999, 999),
                ['?' if i is None else plain(survey.classes[i])
                 for i in numbers],
                [COLORS[(i or 0) % len(COLORS)] for i in numbers] or None)


def plain(name):
    """A name in one short line."""
    name = one_line(name)
    return name if len(name) <= 24 else name[:23] + '…'


if __name__ == '__main__':
    sys.exit(main())
