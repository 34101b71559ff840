"""Shows what there is, as a page."""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Template

from examples.services.catalogue import prices

app = FastAPI()


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(text).render(catalogue=prices())
