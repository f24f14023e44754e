"""Pictures with boxes: drawn bananas, the original archive, your own folder.

The functions are imported when first used. A process that only draws
pictures therefore never pays for importing PyTorch.
"""
import lazy_loader

BANANA_CLASSES = ['banana']

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=['archive', 'coco', 'drawing', 'drawn', 'files', 'folder',
                'labels', 'pictures', 'table', 'things'],
    submod_attrs={
        'folder': ['Problem', 'check_folder', 'class_names'],
        'loading': ['BananasDataset', 'load_data_bananas',
                    'read_data_bananas'],
        'pictures': ['open_image'],
    })
__all__ += ['BANANA_CLASSES']
