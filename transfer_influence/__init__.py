"""Which parts of your source data help a target task, which hurt it, and how sure are you?

`dir(transfer_influence)` lists the names most people need; each is loaded when it is first used.
"""
import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
