"""Image files to pixels, in operations of TensorFlow.

Training reads its files with the very functions that an exported model holds,
so that a file has the same pixels in both. What is read:

| file | what of it |
|---|---|
| JPEG | gray, colors and four inks; its EXIF orientation |
| PNG | all kinds, palettes too; the first frame; its EXIF orientation |
| BMP | 1, 4 and 8 bits with a palette, 24 and 32 bits; not compressed ones |
| GIF | its first frame |
| WebP | of one frame; its EXIF orientation; by TensorFlow 2.19 or later |

The size of an image is taken from its header and bounded before anything is
decoded. Everything else is refused by an `InvalidArgumentError` that begins
with the name of the file. This package imports TensorFlow: import it where
TensorFlow is at work already.
"""

from keras_topo.decoding.images import decode, images_from_bytes, resized

__all__ = ["decode", "images_from_bytes", "resized"]
