"Make README.md, and its pictures, from nbs/index.ipynb as it was saved: prose, code, text outputs, figures."
from base64 import b64decode
from pathlib import Path
import json
import re
import sys

ROOT = Path(__file__).resolve().parent.parent


def markdown(source):
    "Links between notebooks become links from the top folder."
    source = re.sub(r'\]\((?!http|#)([^)]+\.ipynb)\)', r'](nbs/\1)', source)
    return source.replace('](../', '](')


def shown(output, name, alt):
    "A saved output as markdown, and the picture in it as (name, bytes)."
    data = output.get('data', {})
    if 'image/png' in data: return f'![{alt}](docs/images/{name})', (name, b64decode(''.join(data['image/png'])))
    text = ''.join(output.get('text') or data.get('text/plain') or '').rstrip()
    return (f'```\n{text}\n```' if text else ''), None


def cell_parts(cell, number):
    "The markdown of a cell, and its pictures."
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return [markdown(source)], []
    options = dict(re.findall(r'^#\|\s*([\w-]+):?\s*(.*)$', source, re.M))
    if 'hide' in options: return [], []
    code = '\n'.join(l for l in source.split('\n') if not l.startswith('#|')).strip()
    parts = [] if options.get('echo') == 'false' or not code else [f'```python\n{code}\n```']
    outputs = [shown(o, f'readme-{number}.png', options.get('fig-alt', '')) for o in cell['outputs']]
    return parts + [text for text, _ in outputs if text], [p for _, p in outputs if p]


def convert(notebook):
    "README text and {file name: bytes} of its pictures."
    parts, pictures = [], {}
    for number, cell in enumerate(json.loads(notebook.read_text('utf-8'))['cells']):
        texts, images = cell_parts(cell, number)
        parts += texts; pictures.update(images)
    return '\n\n'.join(parts) + '\n', pictures


def main(root):
    "Write the README and its pictures below `root`."
    text, pictures = convert(ROOT/'nbs'/'index.ipynb')
    (root/'docs'/'images').mkdir(parents=True, exist_ok=True)
    for old in (root/'docs'/'images').glob('readme-*.png'): old.unlink()
    for name, data in pictures.items(): (root/'docs'/'images'/name).write_bytes(data)
    (root/'README.md').write_text(text, 'utf-8')


if __name__ == '__main__': main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
