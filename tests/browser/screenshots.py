# ruff: noqa: T201 - a script that prints
"""`make screenshots`: a picture of each view of the page, of the demo's plants, into docs/pictures.

Some six minutes: the demo runs until the curves of its page are full.
"""

import argparse
import asyncio
import base64
import re
import struct
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from tests.kit.chromium import driven
from tests.kit.process import ROOT, sems_gateway

PICTURES = ROOT / "docs" / "pictures"
FULL = 310.0
"""Seconds until the demo's curves are: its `recent`, and a step."""
PHONE = {"width": 390, "height": 844}
HOUSE = "9010KETU218W0001"
LIMIT = "active_power_limit"
SET = f"""(async () => {{
  const put = (id, value, event) => {{
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(event, {{bubbles: true}}));
  }};
  put('setpoint', '{LIMIT}', 'change');
  put('value', '60', 'input');
  document.getElementById('explain').click();
}})()"""
SMALL = """async base64 => {
  // The 256 colours that are most often there, each other one as the nearest of them: half the bytes, and looks alike.
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const {width, height} = image;
  const canvas = new OffscreenCanvas(width, height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  const pixels = new Uint32Array(canvas.getImageData(0, 0, width, height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const palette = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 256).map(([colour]) => colour);
  const parts = colour => [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255];
  const far = (one, other) => parts(one).reduce((sum, part, n) => sum + (part - parts(other)[n]) ** 2, 0);
  const index = new Map([...counts.keys()].map(colour => [colour,
    palette.reduce((best, each, n) => far(each, colour) < far(palette[best], colour) ? n : best, 0)]));
  const rows = new Uint8Array(height * (width + 1));  // each begins with 0: no filter
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rows[y * (width + 1) + 1 + x] = index.get(pixels[y * width + x]);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate'));
  const bytes = async stream => btoa(Array.from(new Uint8Array(await new Response(stream).arrayBuffer()),
    byte => String.fromCharCode(byte)).join(''));
  return {width, height, palette: palette.flatMap(parts), data: await bytes(packed)};
}"""
VIEWS = {
    "page-plants": ("#/plants", {}, "document.querySelector('#plants .drawn') !== null"),
    "page-plants-dark": ("#/plants", {"scheme": "dark"}, "document.querySelector('#plants .drawn') !== null"),
    "page-devices": ("#/devices", {}, "document.querySelector('#devices .drawn') !== null"),
    "page-registers": (f"#/registers/{HOUSE}", {}, "document.querySelector('#registers-rows tr') !== null"),
    "page-system": ("#/system", {}, "document.querySelector('#budgets .meter') !== null"),
    "page-command": (f"#/devices/{HOUSE}", {"height": 960}, "!document.getElementById('set-form').hidden"),
    "page-phone": ("#/plants", PHONE, "document.querySelector('#plants .drawn') !== null"),
}
"""Name → address, how it is shown, and what is true once it is all there."""


@contextmanager
def demo(directory):
    """Run the demo; gives out the address of its page, and the token."""
    config = directory / "demo.yaml"
    ports = ("--mqtt-port", 0, "--modbus-port", 0, "--sems-port", 0, "--web-port", 0)
    with sems_gateway("demo", "--write-config", config, *ports, fresh=True) as process:
        url = process.line(r"^ready .*web=(\S+)")[1]
        yield url, re.search(r"token: (\w+), write: true", config.read_text())[1]


async def main(wait):
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        with demo(folder) as (url, token):
            print(f"waiting {wait:.0f} s for the curves")
            await asyncio.sleep(wait)
            async with driven(folder / "browser") as browser:
                for name in VIEWS:
                    raw = await small(browser, await picture(browser, url, token, name))
                    (PICTURES / f"{name}.png").write_bytes(raw)
                    print(f"docs/pictures/{name}.png {len(raw) / 1000:.0f} KB")


async def picture(browser, url, token, name):
    """Return a view as PNG."""
    view, looks, there = VIEWS[name]
    async with browser.tab(url, still=True, **looks) as tab:
        await tab.call("Emulation.setScrollbarsHidden", hidden=True)
        await tab.run(f"sessionStorage.setItem('sems-gateway-token', '{token}')")
        await tab.open(f"{url}/?{view}")  # the question mark has it loaded again, with the token
        await tab.until("!document.body.classList.contains('lost')")
        await tab.until(there)
        if name == "page-command":
            await tab.run(SET)
            await tab.until("!document.getElementById('send').disabled")
            await tab.run("document.getElementById('send').click()")
            await tab.until("document.getElementById('following').innerText.includes('sent')")
        assert tab.console == [], tab.console
        return await tab.picture()


async def small(browser, raw):
    """Return a PNG with a palette."""
    async with browser.tab("data:text/html,") as tab:
        found = await tab.run(f"({SMALL})('{base64.b64encode(raw).decode()}')")
    head = struct.pack(">IIBBBBB", found["width"], found["height"], 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", head),
        (b"PLTE", bytes(found["palette"])),
        (b"IDAT", base64.b64decode(found["data"])),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", type=float, default=FULL, help="seconds until the pictures are taken")
    asyncio.run(main(parser.parse_args().wait))
