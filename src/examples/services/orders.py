"""Takes orders: POST `{"article": "tea", "count": 2}` to `/orders`."""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, PositiveInt

from examples.services.catalogue import prices

app = FastAPI()


class Order(BaseModel):
    article: str
    count: PositiveInt


@app.post("/orders")
def order(order: Order) -> dict[str, int]:
    price = prices().get(order.article)
    if price is None:
        raise HTTPException(404, f"there is no {order.article}")
    return {"total": price * order.count}


def main() -> None:
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
