# SPDX-License-Identifier: Apache-2.0
"""Wrote the Keras files beside it: what tf2onnx and TensorFlow's own converter (full int8) make of
two small random networks, with a batch of unknown size.

    pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0 && python tests/data/export_keras.py

Only this script needs TensorFlow; the tests read the files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf2onnx

FOLDER = Path(__file__).resolve().parent
L = tf.keras.layers


def images() -> tf.keras.Model:
    """Most layers that images meet: padding, depthwise with a multiplier, squeeze-excite, a
    residual, up- and downsampling, a skip, a transposed convolution."""
    x = L.Input((16, 16, 3))
    y = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
    y = L.BatchNormalization()(L.Conv2D(8, 3, strides=2, use_bias=False)(y))
    skip = L.ReLU(6.0)(y)
    y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(skip)
    y = L.Activation("swish")(y)
    gate = L.Conv2D(4, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(y))
    y = L.Multiply()([y, L.Conv2D(16, 1, activation="hard_sigmoid")(gate)])
    y = L.Add()([skip, L.Conv2D(8, 1)(y)])
    y = L.Concatenate()([L.UpSampling2D()(L.MaxPooling2D()(y)), skip])
    y = L.LeakyReLU()(L.Conv2DTranspose(4, 3, strides=2, padding="same")(y))
    y = L.Dropout(0.2)(L.Reshape((-1,))(L.AveragePooling2D(4)(y)))
    y = L.Dense(10, activation="tanh")(y)
    return tf.keras.Model(x, L.Dense(4, activation="softmax")(y))


def series() -> tf.keras.Model:
    """One dimension."""
    x = L.Input((32, 3))
    y = L.MaxPooling1D(2)(L.Conv1D(8, 5, padding="same", activation="relu")(x))
    y = L.Activation("hard_swish")(L.BatchNormalization()(L.Conv1D(8, 3, strides=2)(y)))
    return tf.keras.Model(x, L.Dense(5)(L.GlobalMaxPooling1D()(L.SeparableConv1D(12, 3)(y))))


def export(model: tf.keras.Model, name: str) -> None:
    """Both formats, and inputs with Keras' own outputs."""
    rng = np.random.default_rng(0)
    shape = model.input_shape[1:]
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    x = rng.normal(size=(32, *shape)).astype(np.float32)
    np.savez_compressed(FOLDER / f"{name}.npz", x=x[:4], y=model.predict(x[:4], verbose=0))
    signature = [tf.TensorSpec([None, *shape], tf.float32, name="x")]
    tf2onnx.convert.from_function(
        tf.function(lambda x: model(x), input_signature=signature),
        input_signature=signature,
        opset=17,
        output_path=FOLDER / f"{name}.onnx",
    )
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        (FOLDER / f"{name}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    tf.keras.utils.set_random_seed(0)
    export(images(), "keras_images")
    export(series(), "keras_series")
