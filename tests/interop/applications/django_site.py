"""A Django project in one file, as its wsgi.py would be."""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(SECRET_KEY="not secret", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__)


def hello(request: HttpRequest, name: str) -> Any:
    visits = int(request.COOKIES.get("visits", "0")) + 1
    response = HttpResponse(f"Hello {name}, {request.GET['q']} {request.build_absolute_uri()}")
    response.set_cookie("visits", str(visits))
    return response


def add(request: HttpRequest) -> Any:
    return JsonResponse({"sum": sum(json.loads(request.body)), "started": True})


def upload(request: HttpRequest) -> Any:
    file: Any = request.FILES["file"]
    total = hashlib.sha256()
    for piece in file.chunks():
        total.update(piece)
    return JsonResponse({"text": request.POST["text"], "filename": file.name, "digest": total.hexdigest()})


def digest(request: HttpRequest) -> Any:
    total = hashlib.sha256()
    while piece := request.read(50_000):
        total.update(piece)
    return HttpResponse(total.hexdigest())


def stream(request: HttpRequest) -> Any:
    count = int(request.GET["lines"])

    def lines() -> Iterator[str]:
        try:
            for number in range(count):
                yield f"line {number}\n"
        finally:
            print("the stream has ended", flush=True)

    return StreamingHttpResponse(lines(), content_type="text/plain")


def file(request: HttpRequest) -> Any:
    return FileResponse(open(os.environ["LARGE"], "rb"))


def error(request: HttpRequest) -> Any:
    raise ValueError("the application's")


urlpatterns = [
    path("hello/<name>", hello),
    path("add", add),
    path("upload", upload),
    path("digest", digest),
    path("stream", stream),
    path("file", file),
    path("error", error),
]
application = get_wsgi_application()
