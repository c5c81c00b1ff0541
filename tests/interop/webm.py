"""A film as a WebM file (the Matroska container, RFC 9559), out of pictures as a browser's canvas saves them.

A WebP picture with loss is a RIFF container around a key frame of VP8, and a film of key frames alone can be sought to
any of them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence


def film(pictures: Sequence[bytes], width: int, height: int) -> bytes:
    """One WebP picture a second."""
    head = element(
        0x1A45DFA3,  # EBML
        *(element(0x4286, b"\1"), element(0x42F7, b"\1"), element(0x42F2, b"\4"), element(0x42F3, b"\x08")),
        *(element(0x4282, b"webm"), element(0x4287, b"\2"), element(0x4285, b"\2")),
    )
    info = element(
        0x1549A966,  # Info: times are in milliseconds
        *(element(0x2AD7B1, number(1_000_000)), element(0x4489, struct.pack(">d", 1000.0 * len(pictures)))),
        *(element(0x4D80, b"tests"), element(0x5741, b"tests")),
    )
    video = element(0xE0, element(0xB0, number(width)), element(0xBA, number(height)))
    track = element(
        0xAE, element(0xD7, b"\1"), element(0x73C5, b"\1"), element(0x83, b"\1"), element(0x86, b"V_VP8"), video
    )
    clusters = [
        element(0x1F43B675, element(0xE7, number(1000 * second)), element(0xA3, b"\x81\0\0\x80", frame_of(picture)))
        for second, picture in enumerate(pictures)
    ]
    tracks = element(0x1654AE6B, track)
    place = len(info) + len(tracks) + len(index_of(clusters, 0))
    return head + element(0x18538067, info, tracks, index_of(clusters, place), *clusters)


def index_of(clusters: Sequence[bytes], place: int) -> bytes:
    """Cues: where in the segment the picture of each second is, the first being at `place`."""
    points = []
    for second, cluster in enumerate(clusters):
        position = element(0xB7, element(0xF7, b"\1"), element(0xF1, number(place)))
        points.append(element(0xBB, element(0xB3, number(1000 * second)), position))
        place += len(cluster)
    return element(0x1C53BB6B, *points)


def element(name: int, *content: bytes) -> bytes:
    """An element, its size always written in eight bytes (RFC 8794 section 4)."""
    body = b"".join(content)
    return name.to_bytes((name.bit_length() + 7) // 8) + (1 << 56 | len(body)).to_bytes(8) + body


def number(value: int) -> bytes:
    return value.to_bytes(8)


def frame_of(picture: bytes) -> bytes:
    """The key frame in a WebP picture (RFC 9649 section 2)."""
    at = 12
    while picture[at : at + 4] != b"VP8 ":
        assert at < len(picture), "a picture without loss"
        at += 8 + (int.from_bytes(picture[at + 4 : at + 8], "little") + 1 & ~1)
    return picture[at + 8 : at + 8 + int.from_bytes(picture[at + 4 : at + 8], "little")]
