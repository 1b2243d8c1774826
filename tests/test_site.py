"The documentation site: built, every link followed, looked at in a browser."
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag
import importlib
import subprocess
import sys

import pytest

from browser import BROWSER, browser, serve, watched

PAGES = 'index', 'tutorials/five_minutes', 'figures/fig7_examples', 'influence/result', 'library', 'names'

pytestmark = pytest.mark.slow  # the whole site is made


class Links(HTMLParser):
    "All links and names of a page."
    def __init__(self, text): super().__init__(); self.to, self.names = [], set(); self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs); self.names.add(a.get('id'))
        self.to += [a[k] for k in ('href', 'src') if a.get(k)]


@pytest.fixture(scope='module')
def site(root, tmp_path_factory):
    out = tmp_path_factory.mktemp('site')/'html'
    r = subprocess.run([sys.executable, root/'docs'/'make_site.py', out], capture_output=True, text=True, timeout=200)
    assert r.returncode == 0, r.stderr
    return out


@pytest.mark.timeout(240)
def test_links(site):
    pages = {f: Links(f.read_text('utf-8')) for f in site.rglob('*.html')}
    assert len(pages) > 70
    for file, page in pages.items():
        assert file.stat().st_size < 2e6, file
        for link in page.to:
            path, name = urldefrag(link)
            if path.startswith(('http:', 'https:', 'mailto:', 'data:')): continue
            other = (file.parent/unquote(path.split('?')[0])).resolve() if path else file
            assert other.exists(), f'{file.name} links to {link}'
            if name and other.suffix == '.html': assert unquote(name) in pages[other].names, f'{file.name} links to {link}'


def test_every_name_has_words(root):
    "Every public function and class of every module has a docstring."
    import transfer_influence
    bare = []
    for f in sorted((root/'transfer_influence').glob('*/[a-z]*.py')):
        m = importlib.import_module(f'transfer_influence.{f.parent.name}.{f.stem}')
        bare += [f'{f.parent.name}.{f.stem}.{n}' for n in getattr(m, '__all__', []) if callable(o := getattr(m, n)) and o.__module__ == m.__name__ and not (o.__doc__ or '').strip()]
    assert not bare


@pytest.mark.skipif(BROWSER is None, reason='no browser on this machine; apt-get install chromium')
@pytest.mark.timeout(240)
def test_in_browser(site):
    with serve(site) as address, browser() as b:
        for width in (1300, 390):
            page, wrong = watched(b, width)
            for name in PAGES:
                page.goto(f'{address}/{name}.html'); page.wait_for_load_state('networkidle')
                assert page.evaluate('[...document.images].every(i => i.naturalWidth > 0 && i.alt)'), name
                assert page.evaluate('document.documentElement.scrollWidth') <= width, f'{name} is wider than {width} px'
            page.goto(f'{address}/search.html?q=class_influence')
            page.wait_for_selector('ul.search li a')
            assert 'influence/result.html' in ' '.join(a.get_attribute('href') for a in page.query_selector_all('ul.search li a'))
            assert not wrong; page.close()
