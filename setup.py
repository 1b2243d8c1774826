"Every fact of the package comes from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
facts = config['DEFAULT']
extras = {k.removesuffix('_requirements'): v.split() for k, v in facts.items() if k.endswith('_requirements')}

setup(
    name=facts['lib_name'],
    version=facts['version'],
    description=facts['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=facts['author'],
    license=facts['license'],
    keywords=facts['keywords'],
    python_requires='>=' + facts['min_python'],
    packages=find_packages(include=['transfer_influence', 'transfer_influence.*']),
    include_package_data=True,
    install_requires=facts['requirements'].split(),
    extras_require=extras,
    entry_points={'console_scripts': facts['console_scripts'].split(),
                  'nbdev': ['transfer_influence=transfer_influence._modidx:d']},
)
