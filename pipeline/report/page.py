"""What every page of ours is made of: one style, one script, and a policy that allows no more.

What comes from data is foreign: jinja2 escapes all of it, and the page's own policy lets the
browser run only the script and the style written here.
"""

import base64
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup

_TEMPLATES = resources.files("pipeline.report") / "templates"


def page_environment() -> jinja2.Environment:
    """Give jinja2 over our templates, escaping all that goes in."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template_text(name: str) -> str:
    """Give a template, style or script as it is written."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def page_parts(name: str, pictures: str = "data:") -> dict[str, str]:
    """Give the `style`, `script` and `policy` of a page from NAME.css and NAME.js.

    The base style and the theme's script come first. `pictures` says whence images may come.
    """
    style = template_text("base.css") + template_text(f"{name}.css")
    script = template_text("theme.js") + template_text(f"{name}.js")
    policy = (
        f"default-src 'none'; img-src {pictures}; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    # Ours, not data: the only text that goes in as it is.
    return {"style": Markup(style), "script": Markup(script), "policy": policy}


def as_utf8(page: str) -> str:
    """Escape lone surrogates: a file name that is not UTF-8 has them, UTF-8 cannot hold them."""
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"
