"""A page that plays the videos and the music of a folder; seeking works, since files are served in ranges.

python examples/video.py [FOLDER [ENDPOINT]]      (without a folder it plays three minutes of its own)
"""

from __future__ import annotations

import array
import html
import math
import os
import sys
import tempfile
import wave
from urllib.parse import quote

import trio

from asyncnet import run
from asyncnet.http import Files, HTTPHandler, Mounts, Request, Response

PLAYED = (".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".ogv", ".opus", ".wav", ".webm")
PAGE = """<!DOCTYPE html>
<html lang="en"><meta name="viewport" content="width=device-width"><title>Player</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 50rem; margin: auto; padding: 1rem }
video { width: 100%%; max-height: 80vh }</style>
%s</html>
"""
PLAYER = '<h2>{name}</h2>\n<video controls preload="metadata" src="media/{link}"></video>\n'


def player(folder: str) -> Mounts:
    """The page at the top, the files below /media/."""

    async def page(request: Request) -> Response:
        if request.path != "/":
            return Response.problem(404)
        names = sorted(await trio.to_thread.run_sync(os.listdir, folder))
        played = [PLAYER.format(name=html.escape(n), link=quote(n)) for n in names if n.lower().endswith(PLAYED)]
        return Response.html(PAGE % "".join(played))

    return Mounts({"/": page, "/media": Files(folder, listing=False)})


def compose(path: str, rate: int = 44_100) -> None:
    """Write three minutes of music: 16 MB, so that a browser does not fetch all of it before it plays."""
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        for tones in [(220, 262, 330, 440), (175, 220, 262, 349), (196, 247, 294, 392)]:
            chord = array.array("h")
            for tone in tones:
                chord.extend(int(9000 * math.sin(math.tau * tone * n / rate)) for n in range(rate // 4))
            file.writeframes(chord.tobytes() * 60)


def main(folder: str | None = None, endpoint: str = "tcp://127.0.0.1:8084") -> None:
    with tempfile.TemporaryDirectory() as own:
        if folder is None:
            compose(os.path.join(own, "three chords.wav"))
        run(HTTPHandler(player(folder or own)), endpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
