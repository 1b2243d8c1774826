"The page in a real browser: no error, nothing fetched, pictures there, sorting works."
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next((b for b in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome')) if b), None)
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
PROBE = '''<script>addEventListener('load', () => {
  const t = document.querySelector('section table'), cell = () => t.tBodies[0].rows[0].cells[0].textContent;
  const button = t.querySelectorAll('thead button')[2], order = [];
  button.click(); order.push(cell()); button.click(); order.push(cell());
  document.title = JSON.stringify({order, rows: t.tBodies[0].rows.length, sort: t.querySelectorAll('th')[2].getAttribute('aria-sort'),
    pictures: [...document.images].filter(i => i.complete && i.naturalWidth > 50).length, images: document.images.length,
    alts: [...document.images].every(i => i.alt), fetched: performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length});
});</script></body>'''


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    from transfer_influence.fleet import Fleet
    from transfer_influence.recipe import DesignSpec, Recipe, RunSpec, SourceSpec, TargetSpec, TrainSpec
    from transfer_influence.report import make_report
    out = tmp_path_factory.mktemp('page')/'run'
    recipe = Recipe('Letters & <digits>', SourceSpec(classes=('O', 'Z', 'S', '$', '&', '%'), size=10), (TargetSpec('digits', epochs=3),),
                    DesignSpec(.5), TrainSpec(width=8, epochs=1), RunSpec(16))
    Fleet(recipe, out).run(workers=1, quiet=True)
    return Path(make_report(out))


def test_page_text(page):
    text = page.read_text('utf-8')
    assert len(text) < 5_000_000 and 'Letters &amp; &lt;digits&gt;' in text and 'Positive: including the class raises the output' in text
    assert 'src="http' not in text and 'href="http' not in text


@pytest.mark.skipif(BROWSER is None, reason='no browser on this machine; apt-get install chromium')
@pytest.mark.timeout(120)
def test_page_in_browser(page, tmp_path):
    import json, re
    from html import unescape
    probe = tmp_path/'probe.html'
    probe.write_text(page.read_text('utf-8').replace('</body>', PROBE), 'utf-8')
    r = subprocess.run([BROWSER, *FLAGS, f'--user-data-dir={tmp_path}/profile', '--virtual-time-budget=4000', '--dump-dom', f'file://{probe}'],
                       capture_output=True, text=True, timeout=100)
    seen = json.loads(unescape(re.search(r'<title>(.*?)</title>', r.stdout, re.S)[1]))
    assert seen['rows'] == 6 and seen['images'] == seen['pictures'] >= 4 and seen['alts'] and seen['fetched'] == 0
    assert seen['sort'] == 'ascending' and seen['order'][0] != seen['order'][1]
