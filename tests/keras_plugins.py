"""Keras models for the tests, and the same networks in plain PyTorch; imported by their names only where Keras is there."""

from __future__ import annotations

import keras
import torch
from keras import layers
from torch import Tensor, nn


def dense(inputs: int, outputs: int = 1) -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(8, activation="relu"), layers.Dense(outputs)])


def normal(inputs: int, outputs: int = 1) -> keras.Model:
    rows = keras.Input((inputs,))
    inner = layers.ReLU()(layers.BatchNormalization()(layers.Dense(8)(rows)))
    return keras.Model(rows, layers.Dense(outputs, name="head")(inner))


def dropped(outputs: int = 1, seed: int | None = None) -> keras.Model:
    return keras.Sequential([layers.Dense(8, activation="relu"), layers.Dropout(0.5, seed=seed), layers.Dense(outputs)])


class Residual(keras.Model):
    """Without declared inputs, with a layer that holds layers, and an activation with a weight."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.entry = layers.Dense(6)
        self.block = keras.Sequential([layers.LayerNormalization(), layers.Dense(6), layers.PReLU()])
        self.out = layers.Dense(outputs)

    def call(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        return self.out(x + self.block(x))


def picture(outputs: int = 1) -> keras.Model:
    return keras.Sequential(
        [
            layers.Conv2D(4, 3, padding="same", data_format="channels_first"),
            layers.BatchNormalization(axis=1),
            layers.GlobalAveragePooling2D(data_format="channels_first"),
            layers.Dense(outputs),
        ]
    )


def last() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(1)])


def frozen(outputs: int = 1) -> keras.Model:
    model = keras.Sequential([layers.Dense(8), layers.BatchNormalization(), layers.Dense(outputs)])
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    return model


def bare() -> keras.Layer:
    return layers.Dense(1)


def sure(outputs: int = 1) -> keras.Model:
    return keras.Sequential([layers.Dense(8), layers.Dense(outputs, activation="sigmoid")])


def penalised() -> keras.Model:
    return keras.Sequential([layers.Dense(1, kernel_regularizer="l2")])


def constrained() -> keras.Model:
    return keras.Sequential([layers.Dense(1, kernel_constraint="non_neg")])


def half() -> keras.Model:
    return keras.Sequential([layers.Dense(8, dtype="bfloat16"), layers.Dense(1)])


class Noisy(keras.Layer):
    def call(self, x: Tensor) -> Tensor:
        return x + keras.random.normal(x.shape)


def noisy() -> keras.Model:
    return keras.Sequential([Noisy(), layers.Dense(1)])


def wide(inputs: int) -> keras.Model:
    return keras.Sequential([keras.Input((inputs + 1,)), layers.Dense(1)])


class Twin(nn.Module):
    """`dense`, `normal` or `dropped`, from the initial weights in a file."""

    def __init__(self, inputs: int, weights: str, middle: str) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, 8)
        # Keras: moving = 0.99 moving + 0.01 batch; and it does not correct the moving variance by n / (n - 1)
        self.norm = nn.BatchNorm1d(8, eps=1e-3, momentum=0.01) if middle == "normal" else None
        self.drop = nn.Dropout(0.5) if middle == "dropped" else None
        self.head = nn.Linear(8, 1)
        self.load_state_dict(torch.load(weights), strict=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(x)
        x = torch.relu(self.norm(x) if self.norm is not None else x)
        return self.head(self.drop(x) if self.drop is not None else x)
