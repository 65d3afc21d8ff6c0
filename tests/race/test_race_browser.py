"""The report in a real browser: it complains of nothing, sorts, filters, turns dark, prints, and needs no mouse."""

import pytest
from browser import Browser, find
from test_race_report import HOSTILE, results

from slalom.race.report import render

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find() is None, reason="no Chromium here")]

TABLE = "#standings > .scroll table"


@pytest.fixture(scope="module")
def browser():
    one = Browser(find())
    yield one
    one.close()


@pytest.fixture
def page(browser, tmp_path):
    """The report of three contestants, one of which has a hostile name, freshly loaded."""
    file = tmp_path / "report.html"
    file.write_text(render(results(title=HOSTILE, labels=("sgd", "adam", f"b{HOSTILE}")), f"slalom race '{HOSTILE}'"))
    browser.media()
    browser.size(1280, 900)
    browser.open(file)
    yield browser
    assert browser.complaints() == []


def cells(page, cell):
    """Return a column of the first table, of the rows that are to be seen."""
    rows = f"[...document.querySelectorAll('{TABLE} tbody tr')].filter(row => row.offsetParent)"
    return page.ask(f"{rows}.map(row => row.cells[{cell}].innerText.trim())")


def background(page):
    return page.ask("getComputedStyle(document.body).backgroundColor")


def test_it_loads_itself_alone_and_the_policy_refuses_any_other_script(page, tmp_path):
    assert len(page.requests()) == 1
    assert page.ask("document.querySelectorAll('script').length") == 1
    page.ask(
        "{const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s)}"
    )
    page.ask("{const i = new Image(); i.src = 'https://example.invalid/x.png'; document.body.append(i)}")
    assert page.ask("window.broken") is None
    refused = page.complaints()
    assert len(refused) == 2
    assert all("Content Security Policy" in complaint for complaint in refused)
    page.events.clear()


def test_a_click_on_a_header_sorts_up_and_another_down(page):
    assert len(cells(page, 1)) == 3
    button = "document.querySelectorAll('#standings thead button')[1].click()"
    page.ask(button)
    assert cells(page, 1) == sorted(cells(page, 1))
    assert page.ask("document.querySelectorAll('#standings th')[1].getAttribute('aria-sort')") == "ascending"
    page.ask(button)
    assert cells(page, 1) == sorted(cells(page, 1), reverse=True)


def test_numbers_are_sorted_as_numbers(page):
    page.ask("document.querySelectorAll('#standings thead button')[2].click()")
    scores = [float(text.split()[0][:4]) for text in cells(page, 2)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_the_filter_hides_rows_and_lines_everywhere_and_gives_them_back(page):
    page.ask("document.getElementById('filter').focus()")
    page.call("Input.insertText", text="ada")
    assert cells(page, 1) == ["adam"]
    visible = (
        "[...document.querySelectorAll('figure [data-entrant]')].filter(e => getComputedStyle(e).display != 'none')"
    )
    assert page.ask(f"[...new Set({visible}.map(e => e.dataset.entrant))]") == ["1"]
    page.ask("document.getElementById('filter').select()")
    page.press("Delete", 46)
    assert len(cells(page, 1)) == 3


def test_a_click_on_a_name_hides_it(page):
    page.ask("document.querySelector('#label-0').click()")
    assert "sgd" not in cells(page, 1)
    assert len(cells(page, 1)) == 2


def test_it_is_as_dark_as_the_system_until_somebody_says_otherwise(page):
    light = background(page)
    page.media(scheme="dark")
    dark = background(page)
    assert light != dark
    page.ask("document.getElementById('theme').click()")
    assert background(page) == light
    page.media(scheme="light")
    assert background(page) == light
    page.ask("document.getElementById('theme').click()")
    assert background(page) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(page, scheme):
    page.media(scheme=scheme)
    lights = page.ask("""(() => {
        const light = (name) => {
            const probe = document.createElement('i'); probe.style.color = `var(${name})`; document.body.append(probe);
            const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map(v => v / 255)
                .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            probe.remove();
            return .2126 * r + .7152 * g + .0722 * b;
        };
        return Object.fromEntries(['--page', '--card', '--tint', '--text', '--quiet'].map(n => [n, light(n)]));
    })()""")
    for text in ("--text", "--quiet"):
        for ground in ("--page", "--card", "--tint"):
            low, high = sorted((lights[text], lights[ground]))
            # WCAG 2's ratio for text of ordinary size.
            assert (high + 0.05) / (low + 0.05) > 4.5, (text, ground)


def test_everything_is_reached_and_worked_by_keyboard(page):
    page.ask("window.scrollTo(0, 0)")
    reached = []
    for _ in range(400):
        page.press("Tab", 9)
        where = page.ask("(e => e.id || e.closest('th') && 'th' || e.tagName.toLowerCase())(document.activeElement)")
        if where == "body" and reached:
            break
        reached.append(where)
    assert {"show-0", "show-2", "filter", "theme", "th", "summary"} <= set(reached)
    wanted = page.ask("document.querySelectorAll('section > .scroll thead button').length")
    assert reached.count("th") >= wanted > 10
    page.ask("document.getElementById('show-0').focus()")
    page.press(" ", 32, " ")
    assert len(cells(page, 1)) == 2
    page.ask("document.querySelectorAll('#standings thead button')[1].focus()")
    page.press("Enter", 13, "\r")
    assert page.ask("document.querySelectorAll('#standings th')[1].getAttribute('aria-sort')") == "ascending"
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_what_is_not_text_has_a_name(page):
    named = "e.textContent.trim() || e.closest('label, [aria-hidden=true], [role=img]') || e.getAttribute('aria-label')"
    every = "[...document.querySelectorAll('button, input, svg, figure, .scroll')]"
    assert page.ask(f"{every}.filter(e => !({named})).length") == 0


@pytest.mark.parametrize("width", [1280, 760, 390, 320])
def test_the_page_is_never_wider_than_the_window(page, width):
    page.size(width, 844, phone=width < 760)
    assert page.ask("document.documentElement.scrollWidth") <= width


def test_on_paper_it_is_white_and_unfolded(page):
    page.media(scheme="dark", kind="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert page.ask("getComputedStyle(document.querySelector('.legend')).display") == "none"
    page.media()
    assert page.ask("document.querySelectorAll('details[open]').length") == 0
    page.ask(
        "addEventListener('beforeprint', () => window.unfolded = document.querySelectorAll('details[open]').length)"
    )
    assert page.pdf().startswith(b"%PDF")
    assert page.ask("window.unfolded") == page.ask("document.querySelectorAll('details').length") > 2
    assert page.ask("document.querySelectorAll('details[open]').length") == 0


def test_everything_fits_the_paper(page):
    page.ask("for (const one of document.querySelectorAll('details')) one.open = true")
    page.size(794, 1123)  # A4 at 96 dots an inch
    page.media(kind="print")
    assert page.ask("document.documentElement.scrollWidth") <= 794
