"""Links on paper lead to places in the same file, or out of it."""
import pytest
from needs import lacking
from pypdf import PdfWriter

pytest.importorskip('playwright', reason='Playwright is not installed')
import pdf  # noqa: E402

NAMES = ['book/predictors', 'book/glossary', 'book/references']


@pytest.fixture(scope='module')
def printed(browser):
    """Three chapters as one file, and the page on which each begins."""
    if not (pdf.PAGES / f'{NAMES[0]}.html').exists():
        lacking('the pages are not built; `make book` builds them')
    writer, starts, at = PdfWriter(), {}, 0
    with pytest.MonkeyPatch.context() as patch, (
            pdf.served(pdf.PAGES)) as address:
        patch.setattr(pdf, 'toc_pages', lambda: NAMES)
        parts, _ = pdf.print_pages(browser, address)
    for name, reader in parts.items():
        starts[name] = at
        at += len(reader.pages)
        writer.append(reader, import_outline=False)
    pdf.mend_links(writer, parts, starts, address)
    return writer, starts


def links(writer):
    for number, page in enumerate(writer.pages):
        for link in page.get('/Annots') or []:
            yield number, link.get_object()


def test_no_link_leads_to_the_server_that_printed_them(printed):
    addresses = [str(link['/A']['/URI']) for _, link in links(printed[0])
                 if '/A' in link and '/URI' in link['/A']]
    assert not [one for one in addresses if '127.0.0.1' in one]
    assert [one for one in addresses if 'doi.org' in one]


def test_links_lead_to_the_very_term_of_another_chapter(printed):
    writer, starts = printed
    number_of = {page.indirect_reference: i
                 for i, page in enumerate(writer.pages)}
    tops = {link['/Dest'][3] for number, link in links(writer)
            if '/Dest' in link and number < starts['book/glossary']
            <= number_of[link['/Dest'][0]] < starts['book/references']}
    assert len(tops) > 5  # not all to its first line


def test_no_link_is_too_small_to_be_hit(printed):
    for _, link in links(printed[0]):
        left, bottom, right, top = link['/Rect']
        assert top - bottom > 5
