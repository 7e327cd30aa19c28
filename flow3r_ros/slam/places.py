"""Which keyframes of the map show the place that this one shows?

A picture is described by its SIFT features gathered around the words of a small vocabulary (VLAD:
Jegou et al., CVPR 2010; square-rooted features: Arandjelovic and Zisserman, CVPR 2012), which the
map learns from its own first keyframes: nothing needs to be shipped, and a saved map brings its
vocabulary along.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flow3r_ros.types import Float32, UInt8

WORDS = 32
"""words of the vocabulary"""
LEARN_FROM = 3
"""keyframes that the vocabulary is first learned from: a map of a slow second has no more"""
MAX_FEATURES = 6000
"""features at most that it is learned from"""


class Places:
    """Descriptions of the keyframes of a map, by key; owns them and the vocabulary.

    `vocabulary` float32 `[WORDS, 128]`, None until enough keyframes were seen. It is learned anew
    each time their number has doubled: one that was learned from a blank wall knows no desk.
    """

    def __init__(self) -> None:
        self.vocabulary: Float32 | None = None
        self._learn_at = LEARN_FROM
        self._descriptors: dict[int, UInt8] = {}
        self._rows = np.empty((0, WORDS * 128), np.float32)

    def add(self, key: int, descriptors: UInt8) -> None:
        """Remember a keyframe by its descriptors uint8 `[N, 128]`."""
        self._descriptors[key] = descriptors
        if len(self._descriptors) >= self._learn_at:
            self._learn()
        elif self.vocabulary is not None:
            row = describe_place(descriptors, self.vocabulary)
            self._rows = np.concatenate([self._rows, row[None]])

    def _learn(self) -> None:
        """The vocabulary, and every keyframe's description by it."""
        known = list(self._descriptors.values())
        self.vocabulary = learn(known)
        if self.vocabulary is not None:
            self._learn_at = 2 * len(known)
            self._rows = np.stack([describe_place(each, self.vocabulary) for each in known])

    def remove(self, key: int) -> None:
        """Forget a keyframe."""
        if self.vocabulary is not None and key in self._descriptors:
            self._rows = np.delete(self._rows, list(self._descriptors).index(key), axis=0)
        self._descriptors.pop(key, None)

    def alike(self, descriptors: UInt8, among: set[int], count: int) -> list[int]:
        """Keys of the keyframes `among` which a picture is most like, the best first, at most
        `count`; none before there is a vocabulary."""
        if self.vocabulary is None or not len(descriptors):
            return []
        likeness = self._rows @ describe_place(descriptors, self.vocabulary)
        keys, order = list(self._descriptors), np.argsort(-likeness, kind="stable")
        return [keys[at] for at in order if keys[at] in among][:count]


def learn(pictures: Sequence[UInt8]) -> Float32 | None:
    """A vocabulary from the descriptors of some pictures; None with too few of them."""
    features = square_rooted(np.concatenate(list(pictures)))
    if len(features) < 4 * WORDS:
        return None
    features = features[:: max(1, -(-len(features) // MAX_FEATURES))]
    cv2.setRNGSeed(0)  # the same map for the same keyframes
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-3)
    first = np.zeros((len(features), 1), np.int32)
    _, _, words = cv2.kmeans(features, WORDS, first, until, 1, cv2.KMEANS_PP_CENTERS)
    return np.asarray(words, np.float32)


def describe_place(descriptors: UInt8, vocabulary: Float32) -> Float32:
    """Unit vector float32 `[WORDS * 128]` of a picture's descriptors uint8 `[N, 128]`: what its
    features differ from their words by, each word with the same weight."""
    gathered = np.zeros_like(vocabulary)
    if len(descriptors):
        features = square_rooted(descriptors)
        nearest = np.argmax(features @ vocabulary.T - 0.5 * np.sum(vocabulary**2, axis=1), axis=1)
        np.add.at(gathered, nearest, features - vocabulary[nearest])
        gathered /= np.maximum(np.linalg.norm(gathered, axis=1, keepdims=True), 1e-9)
    return np.asarray(gathered.ravel() / max(float(np.linalg.norm(gathered)), 1e-9), np.float32)


def square_rooted(descriptors: UInt8) -> Float32:
    """Descriptors `[N, 128]` as unit vectors of the roots of their shares."""
    values = descriptors.astype(np.float32)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(np.sqrt(shares), np.float32)
