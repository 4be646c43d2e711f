"""Chinese pages have the pages, commands, numbers, headings, links and images of the English ones.

A page and its translation are compared section by section: code blocks and headings in order, all
else as a multiset, since the order of words differs. What has no translation is in NOT_TRANSLATED.
"""

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
CHINESE = ROOT / 'docs/zh_cn'
# Pages for those who change or operate the package; a user's pages are translated.
NOT_TRANSLATED = {
    'docs/api.md',
    'docs/architecture.md',
    'docs/choose.md',  # its tables are written by a tool
    'docs/documentation.md',
}

BLOCK = re.compile(r'^ *```.*?^ *```$', re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r'<!--.*?-->', re.DOTALL)
HEADING = re.compile(r'^(#+) .+$', re.MULTILINE)
CODE = re.compile(r'(`+)(.+?)\1', re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)')
LANGUAGE_LINK = re.compile(r'^(?:- )?\[(?:English|简体中文)\]\(([^)]+)\)$', re.MULTILINE)
MONTHS = (
    'January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September',
    'October', 'November', 'December',
)  # fmt: skip
MONTH = re.compile(rf'\b({"|".join(MONTHS)})(?= \d{{4}}\b)')
# A numeral that is no part of a name (MMAction2), and its factor: "120 thousand" is "12 万".
NUMBER = re.compile(r'(?<![A-Za-z\d])(\d+(?:[.,]\d+)*)(?: ?(thousand|million|万|百万|亿))?')
FACTORS = {'': 1, 'thousand': 10**3, 'million': 10**6, '万': 10**4, '百万': 10**6, '亿': 10**8}


def english_pages() -> list[Path]:
    pages = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
    return [page for page in pages if CHINESE not in page.parents]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def chinese_of(page: Path) -> Path:
    if page == ROOT / 'README.md':
        return ROOT / 'README_zh-CN.md'
    return CHINESE / page.relative_to(ROOT / 'docs')


TRANSLATED = [page for page in english_pages() if name_of(page) not in NOT_TRANSLATED]
each_page = pytest.mark.parametrize('page', TRANSLATED, ids=name_of)


def blocks_of(text: str) -> list[str]:
    return BLOCK.findall(text)


def sections_of(text: str) -> list[tuple[str, str]]:
    """Return the level and the text of each heading with what is below it, without code blocks."""
    text = LANGUAGE_LINK.sub('', COMMENT.sub('', BLOCK.sub('', text)))
    starts = [*HEADING.finditer(text)]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [(match[1], text[match.start() : end]) for match, end in zip(starts, ends, strict=True)]


def numbers_in(text: str) -> Counter[str]:
    """Count the numerals of prose and tables: months as numbers, without code and addresses."""
    text = re.sub(r'<[^>]+>', '', LINK.sub(']', CODE.sub('', text)))
    text = MONTH.sub(lambda match: str(MONTHS.index(match[1]) + 1), text)
    return Counter(
        f'{(Decimal(digits.replace(",", "")) * FACTORS[word]).normalize():f}' if word else digits
        for digits, word in NUMBER.findall(text)
    )


def codes_in(text: str) -> Counter[str]:
    return Counter(' '.join(match[1].split()) for match in CODE.findall(text))


def targets_in(text: str, page: Path) -> Counter[str]:
    """Count the targets of links and images, from the root; those of translations in English."""
    return Counter(target_of(link, page) for link in LINK.findall(CODE.sub('', text)))


def target_of(link: str, page: Path) -> str:
    path, mark, anchor = link.partition('#')
    if ':' in link or not path or path.startswith('../../actions'):
        return link
    file = (page.parent / path).resolve()
    for english in TRANSLATED:
        if file == chinese_of(english):
            return f'{name_of(english)}{mark}{anchor}'
    return f'{file.relative_to(ROOT).as_posix()}{mark}{anchor}'


def is_of_the_reader(link: str, page: Path) -> bool:
    """Whether a Chinese page links to the Chinese form of a page where there is one."""
    file = (page.parent / link.partition('#')[0]).resolve()
    return ':' in link or file not in TRANSLATED


def test_every_page_has_a_translation_or_is_listed() -> None:
    english = {name_of(page) for page in english_pages()}
    chinese = {ROOT / 'README_zh-CN.md', *CHINESE.rglob('*.md')}
    assert english >= NOT_TRANSLATED
    assert chinese == {chinese_of(page) for page in TRANSLATED}


@each_page
def test_each_page_links_to_the_other_language_below_its_title(page: Path) -> None:
    for one, other in ((page, chinese_of(page)), (chinese_of(page), page)):
        top = '\n'.join(one.read_text().splitlines()[:3])
        (link,) = LANGUAGE_LINK.findall(top)
        assert (one.parent / link).resolve() == other


@each_page
def test_both_languages_have_the_same_code_blocks(page: Path) -> None:
    assert blocks_of(chinese_of(page).read_text()) == blocks_of(page.read_text())


@each_page
def test_both_languages_have_the_same_sections(page: Path) -> None:
    ours, theirs = sections_of(page.read_text()), sections_of(chinese_of(page).read_text())
    assert [level for level, _ in theirs] == [level for level, _ in ours]
    for (_, english), (_, chinese) in zip(ours, theirs, strict=True):
        where = f'{english.splitlines()[0]} | {chinese.splitlines()[0]}'
        assert numbers_in(chinese) == numbers_in(english), where
        assert codes_in(chinese) == codes_in(english), where
        assert targets_in(chinese, chinese_of(page)) == targets_in(english, page), where
        assert chinese.count('\n|') == english.count('\n|'), f'{where}: rows of tables'
        assert chinese.count('![') == english.count('!['), f'{where}: images'


@each_page
def test_a_chinese_page_links_to_chinese_pages(page: Path) -> None:
    chinese = chinese_of(page)
    text = LANGUAGE_LINK.sub('', CODE.sub('', BLOCK.sub('', chinese.read_text())))
    assert [x for x in LINK.findall(text) if not is_of_the_reader(x, chinese)] == []


def literal_asterisks(page: Path) -> int:
    """Count the asterisks that a page shows because they are not read as emphasis."""
    tokens = MarkdownIt().enable('table').parse(page.read_text())
    shown = [part for token in tokens for part in token.children or [] if part.type == 'text']
    return sum(part.content.count('**') for part in shown)


@each_page
def test_emphasis_of_a_chinese_page_is_read_as_emphasis(page: Path) -> None:
    """Bold text that ends with a punctuation mark needs a space or a mark behind it."""
    assert literal_asterisks(chinese_of(page)) == literal_asterisks(page)


@each_page
def test_a_chinese_page_is_in_chinese(page: Path) -> None:
    """No paragraph was left in English: each line of prose with many words has Chinese ones."""
    text = COMMENT.sub('', BLOCK.sub('', chinese_of(page).read_text()))
    lines = [line for line in text.splitlines() if not re.search(r'[\u4e00-\u9fff]', line)]
    plain = [re.sub(r'[|\-].*|"[^"]*"', '', LINK.sub('', CODE.sub('', line))) for line in lines]
    assert [line for line in plain if len(re.findall(r'[A-Za-z]+', line)) > 12] == []


@pytest.mark.parametrize(
    ('english', 'chinese'),
    [
        ('November 2026, 1,600 videos', '2026 年 11 月，1,600 个视频'),
        ('120 thousand videos of 1.2 million', '120 万个视频中的 12 万个'),
        ('97.75 % of `x 8`, [1](a2.md)', '[1](b3.md)，`y 9` 的 97.75 %'),
        ('1e-5 <a id="x1"></a>', '1e-5'),
    ],
)
def test_scanner_reads_the_same_numbers_in_both_languages(english: str, chinese: str) -> None:
    assert numbers_in(english) == numbers_in(chinese) != Counter()


@pytest.mark.parametrize('other', ['2026 年 12 月', '2026 年', '2026 年 11 月，3', '2025 年 11 月'])
def test_scanner_finds_another_number(other: str) -> None:
    assert numbers_in('November 2026') != numbers_in(other)


def test_sections_leave_out_blocks_and_comments() -> None:
    text = '# A\n\n[English](x.md)\n\n```\n# 1\n```\n<!-- 2 -->\n\n## B\n3\n'
    assert [level for level, _ in sections_of(text)] == ['#', '##']
    assert [numbers_in(section) for _, section in sections_of(text)] == [{}, {'3': 1}]
