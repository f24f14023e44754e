"""Single-shot multibox detection, built from nothing: the package of the book.

Every public name is an attribute of this module, as in ``d2lssd.TinySSD``.
A submodule is imported when the first of its names is used, so that
``import d2lssd`` costs next to nothing.
"""
import lazy_loader

__version__ = '1.0.0'

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=['check', 'data', 'widgets'],
    submod_attrs={
        'boxes': ['box_center_to_corner', 'box_corner_to_center', 'box_iou',
                  'offset_boxes', 'offset_inverse'],
        'anchors': ['check_labels', 'match_anchors', 'multibox_prior',
                    'multibox_target', 'object_weights'],
        'detection': ['fuse_boxes', 'multibox_detection', 'nms',
                      'vote_boxes'],
        'judge': ['Judge', 'close_ups', 'hear_boxes', 'judge_boxes',
                  'teach_judge'],
        'model': ['TinySSD', 'base_net', 'bbox_predictor', 'blk_forward',
                  'cls_predictor', 'concat_preds', 'down_sample_blk',
                  'evaluating', 'flatten_pred', 'forward', 'get_blk',
                  'num_anchors', 'ratios', 'sizes'],
        'losses': ['balanced_loss', 'calc_loss', 'focal_loss', 'smooth_l1'],
        'metrics': ['average_precision', 'bbox_eval', 'best_iou', 'cls_eval',
                    'finds_nothing', 'hits', 'interpolate_precision',
                    'match_detections', 'mistakes', 'precision_recall_curve'],
        'classes': ['adapt', 'check_classes', 'classes_in', 'classes_of'],
        'evaluation': ['EXAMS', 'detect_all', 'evaluate', 'examine',
                       'set_operating_point'],
        'data': ['BANANA_CLASSES', 'BananasDataset', 'load_data_bananas',
                 'read_data_bananas'],
        'data.drawing': ['compose', 'draw_banana', 'draw_scene'],
        'memory': ['keep_memory'],
        'training': ['Accumulator', 'RECIPES', 'Recipe', 'Timer', 'autocast',
                     'train', 'try_gpu'],
        'prediction': ['detect', 'load_pretrained', 'load_weights', 'predict',
                       'read_image', 'save_picture', 'save_weights',
                       'trained_weights', 'weights_card'],
        'export': ['export_judge', 'export_onnx'],
        'plotting': ['Animator', 'bbox_to_rect', 'display',
                     'plot_precision_recall', 'plot_score_iou', 'plt',
                     'set_figsize', 'show_bboxes', 'show_images', 'to_pixels'],
    })
