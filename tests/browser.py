"A real browser, and a server on loopback for the pages that it opens."
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import which
from threading import Thread

BROWSER = next((b for b in map(which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome')) if b), None)
FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@contextmanager
def serve(folder):
    "Serve a folder on loopback; yields its address."
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown(); server.server_close()


@contextmanager
def browser():
    "A headless browser."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=BROWSER, args=FLAGS)
        try: yield b
        finally: b.close()


def watched(b, width=1300, height=900, **options): # page, what went wrong on it
    "A new page; errors on its console and requests that would leave the machine are collected in a list."
    page, wrong = b.new_page(viewport=dict(width=width, height=height), **options), []
    page.on('console', lambda m: m.type == 'error' and wrong.append(f'{page.url}: {m.text}'))
    page.on('pageerror', lambda e: wrong.append(f'{page.url}: {e}'))
    ours = 'http://127.0.0.1', 'file:', 'data:', 'blob:'
    page.on('request', lambda r: None if r.url.startswith(ours) else wrong.append(r.url))
    page.on('requestfailed', lambda r: wrong.append(f'{r.url} failed'))
    return page, wrong
