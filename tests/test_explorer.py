"The explorer in JupyterLab, in a real browser: choosing a class changes the pictures."
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from browser import BROWSER, browser

CELL = "import transfer_influence as ti\nti.explore('run')"


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    from transfer_influence.basics.recipe import DesignSpec, Recipe, RunSpec, SourceSpec, TargetSpec, TrainSpec
    from transfer_influence.fleet.fleet import Fleet
    root = tmp_path_factory.mktemp('lab')
    recipe = Recipe(source=SourceSpec(classes=tuple('OZSTBG'), size=14), targets=(TargetSpec('digits', epochs=3),),
                    design=DesignSpec(.5), training=TrainSpec(width=8, epochs=1, batch_size=128), run=RunSpec(24))
    Fleet(recipe, root/'run').run(workers=1, quiet=True)
    cell = dict(cell_type='code', id='a', metadata={}, source=CELL, outputs=[], execution_count=None)
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3'))
    (root/'look.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=kernel, nbformat=4, nbformat_minor=5)))
    return root


@contextmanager
def lab(folder):
    "JupyterLab on loopback; yields its address."
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    options = ['--no-browser', '--ip=127.0.0.1', f'--port={port}', '--allow-root', '--IdentityProvider.token=', '--LabApp.news_url=',
               '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate', '--LabApp.extension_manager=readonly']
    home = dict(os.environ, JUPYTER_CONFIG_DIR=str(folder/'.config'), JUPYTER_RUNTIME_DIR=str(folder/'.runtime'), IPYTHONDIR=str(folder/'.ipython'))
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *options], cwd=folder, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            try: urlopen(f'http://127.0.0.1:{port}/api', timeout=2); break
            except OSError: time.sleep(.25)
        yield f'http://127.0.0.1:{port}'
    finally: server.terminate(); server.wait(20)


@pytest.mark.skipif(BROWSER is None, reason='no browser on this machine; apt-get install chromium')
@pytest.mark.timeout(240)
def test_choosing_changes_the_pictures(folder):
    with lab(folder) as address, browser() as b:
        page = b.new_page(viewport=dict(width=1300, height=1000)); page.goto(f'{address}/lab/tree/look.ipynb')
        page.locator('.jp-Notebook .cm-content').first.click(timeout=90_000)
        page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').wait_for(timeout=60_000)
        page.keyboard.press('Shift+Enter')
        picture = page.locator('.jp-OutputArea img[alt*="moves most, up and down"]'); picture.wait_for(timeout=90_000)
        before = picture.get_attribute('src'); menu = page.locator('.jp-OutputArea select').first
        chosen = menu.evaluate('s => s.selectedOptions[0].text'); other = next(v for v in menu.locator('option').all_text_contents() if v != chosen)
        menu.select_option(label=other)
        page.wait_for_function('old => { const i = document.querySelector(`.jp-OutputArea img[alt*="moves most, up and down"]`); return i && i.src !== old }', arg=before, timeout=30_000)
        assert f'images that {other[-1]} moves' in picture.get_attribute('alt')
        assert 'positive: including the class raises the output' in page.locator('.jp-OutputArea').first.inner_text()
        page.screenshot(path=folder/'explorer.png')
