"""The documentation site: nbdev shows the functions, this turns notebooks into pages, Sphinx binds them.

    python docs/make_site.py [OUT]      # default: _docs; any warning is an error, nothing is fetched

Every notebook of nbs/ is a page. Figures and texts are those saved in the notebooks; no training runs here.
"""
from os.path import relpath
from pathlib import Path
from shutil import copy, copytree, rmtree
from tempfile import mkdtemp
import json
import re
import sys

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {'00_basics': ('Basics', 'What everything uses: errors, the recipe, tables in notebooks.'),
          '10_images': ('Images', 'An image set is arrays with class names; where sets come from.'),
          '20_design': ('Design', 'Which source classes, or images, each model sees.'),
          '30_training': ('Training', 'Models, from masks to outputs. The only floor that needs torch.'),
          '40_records': ('Records', 'Masks, outputs and names, in memory and in files.'),
          '45_fleet': ('Fleet', 'Many models: train what is missing, here or on a cluster.'),
          '50_influence': ('Influence', 'From records to influence, and how far to trust it.'),
          '60_analysis': ('Analysis', 'What to do with influence: removal curves, sub-populations, failures, leaks.'),
          '70_show': ('Show', 'Figures, pages and widgets.'),
          '80_cli': ('Commands', 'What the shell offers.')}
SHELVES = {'tutorials': 'Tutorials', 'background': 'Background', 'figures': 'Figures'}


# notebooks as nbdev processed them

def front_matter(notebook:dict) -> dict:
    "Title, description and page of a processed notebook."
    import yaml
    return yaml.safe_load(''.join(notebook['cells'][0]['source']).strip().strip('-'))


def page_of(path:str, front:dict) -> str:
    "The page of a notebook, as nbdev would name it."
    return unnumbered(Path(path).with_name(Path(front['output-file']).stem).as_posix())


def unnumbered(path:str) -> str:
    "A path without the numbers of its folders."
    return re.sub(r'(^|/)\d+_(?=[^/]*/)', r'\1', path)


def read_notebooks(folder:Path) -> dict: # {path below nbs/: (page, front matter, cells)}
    "All processed notebooks, in the order of their numbers."
    found = {}
    for f in sorted(folder.rglob('*.ipynb')):
        path, notebook = f.relative_to(folder).as_posix(), json.loads(f.read_text('utf-8'))
        front = front_matter(notebook)
        found[path] = page_of(path, front), front, notebook['cells'][1:]
    return found


# links

def link(address:str, path:str, page:str, pages:dict) -> str:
    "A link of a notebook, for its page: to notebooks, to functions, to files of the repository."
    if re.match('[a-z]+:|#', address): return address
    if address.startswith('/'): # nbdev's: /module.html#name
        module, _, name = address[1:].partition('.html#')
        module = unnumbered(module)
        return f'#{module.replace("/", ".")}.{name}' if name else relpath(module, Path(page).parent) + '.ipynb'
    file = Path(relpath(ROOT/'nbs'/Path(path).parent/address, ROOT/'nbs')).as_posix()
    if file in pages: return relpath(pages[file], Path(page).parent) + '.ipynb'
    name = 'files/' + Path(file).name if not file.endswith('.md') else Path(file).name.lower()
    return relpath(name, Path(page).parent)


def with_links(text:str, path:str, page:str, pages:dict) -> str:
    "Markdown with its links made those of the site; private names have no place to link to."
    text = re.sub(r'\[(`_\w+`)\]\(/[^)]*\)', r'\1', text)
    text = re.sub(r'\[\[(`\w+`)\]\(/[^)]*\)\]\(', r'[\1](', text) # a name that is a link already
    return re.sub(r'\]\(([^)\s]+)\)', lambda m: f']({link(m[1], path, page, pages)})', text)


def linked_files(text:str, path:str) -> set:
    "Files of the repository, other than notebooks, that markdown links to."
    found = {(ROOT/'nbs'/Path(path).parent/a).resolve() for a in re.findall(r'\]\(([^)\s:#]+)\)', text) if a[0] != '/'}
    return {f for f in found if f.suffix != '.ipynb'}


# functions

def signature(text:str) -> str:
    "A signature without the modules that its types come from."
    return re.sub(r'\b(?:[a-z_]\w*\.)+(?=[A-Za-z])', '', text).replace(':NoneType=None', '=None')


def docstring(text:str) -> str:
    "nbdev sets the first line of a docstring in italics; here the whole is plain."
    first, _, rest = text.strip().partition('\n')
    if first.startswith('*') and first.endswith('*'): first = first[1:-1]
    return f'{first}\n{rest}'


def label_of(name:str, module:str, taken) -> str:
    "What links point to. It has no capitals, so a function may take that of a class."
    label = f'{module}.{name.lower()}'
    return label if label not in taken else f'{label}-2'


def function(shown:str, module:str, level:int, taken) -> tuple: # (markdown, name, label)
    "What nbdev's `show_doc` says of a function or class, below a label that links can point to."
    name = re.search(r'^#+ (\S+)$', shown, re.M)[1]
    code = re.search(r'```python\n(.*?)```', shown, re.S)[1]
    text = docstring(shown[shown.index('```', shown.index('```python') + 3) + 3:])
    own = set(re.findall(r'(\w+)[:=,)]', code)) # a parameter is no function that happens to have its name
    text = re.sub(r'\[`(\w+)`\]\(/[^)]*\)', lambda m: f'`{m[1]}`' if m[1] in own else m[0], text)
    title, label = name.replace('_', r'\_'), label_of(name, module, taken)
    return f'({label})=\n{"#"*level} {title}\n\n```python\n{signature(code)}```\n\n{text}', name, label


def cell_text(text) -> str:
    "The first sentence of a text, for a cell of a markdown table."
    first = ' '.join((text or '').strip().split('\n\n')[0].split())
    return re.split(r'(?<=[.]) (?=[A-Z])', first)[0].replace('|', r'\|')


def table(head:tuple, rows:list) -> str:
    "A markdown table; empty without rows."
    if not rows: return ''
    return '\n'.join(f'| {" | ".join(r)} |' for r in [head, ['---']*len(head), *rows])


def fields_table(thing) -> str:
    "The fields of a dataclass with the notes that its source gives them."
    from dataclasses import fields
    from fastcore.docments import docments
    notes = docments(thing)
    return table(('field', 'what it is'), [(f'`{f.name}`', cell_text(notes.get(f.name))) for f in fields(thing)])


def methods_table(thing) -> str:
    "The methods and properties of a class, wherever they were patched in."
    public = {n: getattr(thing, n) for n in dir(thing) if n[0] != '_' and n not in getattr(thing, '__dataclass_fields__', ())}
    own = {n: m for n, m in public.items() if getattr(m, '__doc__', None) and (callable(m) or isinstance(m, property))
           and getattr(getattr(m, 'fget', m), '__module__', '').startswith('transfer_influence')}
    return table(('method', 'what it gives'), [(f'`{n}`', cell_text(m.__doc__)) for n, m in own.items()])


def class_tables(name:str, module:str) -> str:
    "Fields and methods of a class, below what `show_doc` says of it; empty for a function."
    from dataclasses import is_dataclass
    from importlib import import_module
    thing = getattr(import_module(f'transfer_influence.{module}'), name, None)
    if not isinstance(thing, type): return ''
    parts = [fields_table(thing) if is_dataclass(thing) else '', methods_table(thing)]
    return ''.join(f'\n\n{p}' for p in parts if p)


# cells

def new_cell(text:str, kind='markdown', **more) -> dict:
    return dict(cell_type=kind, metadata={}, source=text) | more


def still(outputs:list) -> list:
    "Outputs without what needs a running kernel: widgets fall back to the HTML beside them."
    for o in outputs: o.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    return outputs


def code_cell(cell:dict, heading:str) -> dict:
    "A cell of code with its saved outputs; a picture without a text of its own is described by its section."
    source = ''.join(cell['source']); options = dict(re.findall(r'^#\|\s*([\w-]+):?\s*(.*)$', source, re.M))
    meta = dict(tags=['remove-input'] if options.get('echo') == 'false' else [],
                mystnb=dict(image=dict(alt=options.get('fig-alt') or f'Figure: {heading}')))
    text = '\n'.join(line for line in source.split('\n') if not line.startswith('#|')).strip()
    return new_cell(text, 'code', metadata=meta, outputs=still(cell['outputs']), execution_count=None)


def convert(path:str, pages:dict, front:dict, cells:list) -> tuple: # cells, {label: name} of functions
    "A processed notebook as cells for Sphinx."
    page = pages[path]; heading, level, names = front['title'], 2, {}
    dotted = page.replace('/', '.')
    module = f'`transfer_influence.{dotted}` · ' if path[0].isdigit() else ''
    out = [new_cell(f"# {front['title']}\n\n{module}*{front['description']}*")]
    for c in cells:
        if c.get('has_sd'):
            shown = ''.join(c['outputs'][0]['data']['text/markdown'])
            text, name, label = function(shown, dotted, level, names); names[label] = name
            out.append(new_cell(with_links(text, path, page, pages) + class_tables(name, dotted)))
        elif c['cell_type'] == 'code': out.append(code_cell(c, heading))
        elif c['cell_type'] == 'markdown' and 'AUTOGENERATED' not in ''.join(c['source']):
            text = ''.join(c['source']); out.append(new_cell(with_links(text, path, page, pages)))
            for h in re.findall(r'^(##+) (.*)$', text, re.M): heading, level = h[1], len(h[0]) + 1
    return out, names


def write_notebook(cells:list, file:Path) -> None:
    "Cells as a notebook file."
    file.parent.mkdir(parents=True, exist_ok=True)
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3'),
                  language_info=dict(name='python', pygments_lexer='ipython3'))
    for i, c in enumerate(cells): c['id'] = f'cell-{i}'
    file.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)), 'utf-8')


# the shelves

def toctree(pages, caption='') -> str:
    options = [':hidden:'] + ([f':caption: {caption}'] if caption else [])
    return '\n'.join(['```{toctree}', *options, '', *pages, '```'])


def home(pages:dict) -> dict:
    "What the home page adds to the README: the way to all other pages."
    def shelf(folder): return [p for f, p in pages.items() if f.startswith(f'{folder}/')]
    trees = [toctree(shelf(k), v) for k, v in SHELVES.items()]
    trees.append(toctree(['library', 'names', 'contributing', 'changelog'], 'Reference'))
    return new_cell('\n\n'.join(trees + [toctree(shelf(k), floor) for k, (floor, _) in FLOORS.items()]))


def front_door() -> str:
    "The names of the package itself, floor by floor: a table for each."
    import transfer_influence as ti
    found = [(n, getattr(ti, n), getattr(ti, n).__module__.removeprefix('transfer_influence.')) for n in ti.__all__]
    parts = []
    for folder, (floor, _) in FLOORS.items():
        rows = [(f'[`ti.{n}`](#{m}.{n.lower()})', cell_text(thing.__doc__)) for n, thing, m in found if m.split('.')[0] == folder[3:]]
        if rows: parts.append(f'**{floor}**\n\n' + table(('name', 'what it is'), rows))
    return '\n\n'.join(parts)


def library(notebooks:dict) -> str:
    "The page of all modules: what the package itself offers, then floor by floor."
    parts = ['# Library', '`import transfer_influence as ti` offers these names:', front_door(),
             'Below them lie ten floors. Data flows down this list and never up; one numbered notebook is one module.']
    for folder, (floor, sentence) in FLOORS.items():
        rows = [(page, front) for f, (page, front, _) in notebooks.items() if f.startswith(f'{folder}/')]
        parts += [f'## {floor}', sentence, '\n'.join(f"- [`{p.replace('/', '.')}`]({p}.ipynb): {f['description']}" for p, f in rows)]
    return '\n\n'.join(parts)


def names_page(names:dict) -> str: # names: {page: {label: name}}
    "All functions and classes by name."
    rows = sorted(((n, p, label) for p, ns in names.items() for label, n in ns.items()), key=lambda r: r[0].lower())
    return '# Names\n\nEvery public function and class, and its module.\n\n' + '\n'.join(
        f'- [`{n}`](#{label}) · {p.replace("/", ".")}' for n, p, label in rows)


# all together

def write_source(notebooks:dict, src:Path) -> None:
    "The folder that Sphinx reads."
    pages, names, files = {f: p for f, (p, _, _) in notebooks.items()}, {}, set()
    for path, (page, front, cells) in notebooks.items():
        out, names[page] = convert(path, pages, front, cells)
        files |= {f for c in cells if c['cell_type'] == 'markdown' for f in linked_files(''.join(c['source']), path)}
        write_notebook(out + ([home(pages)] if path == 'index.ipynb' else []), src/f'{page}.ipynb')
    (src/'library.md').write_text(library(notebooks), 'utf-8'); (src/'names.md').write_text(names_page(names), 'utf-8')
    for name in ('CONTRIBUTING.md', 'CHANGELOG.md'): copy(ROOT/name, src/name.lower())
    (src/'files').mkdir()
    for f in files: copy(f, src/'files'/f.name) if f.suffix != '.md' else None
    copy(ROOT/'docs'/'conf.py', src); copytree(ROOT/'docs'/'static', src/'static')


def main(out:Path) -> int:
    "Build the site in `out`; the exit status of Sphinx."
    from nbdev.config import get_config
    from nbdev.serve import proc_nbs
    from sphinx.cmd.build import main as sphinx
    proc_nbs(force=True); notebooks = read_notebooks(get_config(path=ROOT).config_path/'_proc')
    src = Path(mkdtemp(prefix='site-')); rmtree(out, ignore_errors=True)
    try:
        write_source(notebooks, src)
        status = sphinx(['-q', '-W', '--keep-going', '-d', str(src/'.trees'), str(src), str(src/'.html')])
        copytree(src/'.html', out, ignore=lambda _, names: [n for n in names if n in ('_sources', '.buildinfo')])
        return status
    finally: rmtree(src)


if __name__ == '__main__': sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT/'_docs').resolve()))
