"""Fetch one file over HTTP: with progress, resume, checksum and an atomic finish.

The file grows as NAME.part and gets its name only when its size and MD5 are right, so whoever finds NAME finds it
whole. A broken transfer leaves NAME.part; the next call asks the server for the rest (HTTP Range).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tqdm import tqdm

BLOCK = 1 << 16


class DownloadError(OSError):
    """A download did not succeed; the message says what happened and what to do."""


def md5(path: str | Path) -> str:
    """MD5 of a file as 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(
    url: str,
    path: str | Path,
    *,
    md5sum: str,
    size: int,
    timeout: float = 30.0,
    retries: int = 4,
    pause: float = 1.0,
    progress: bool = True,
) -> Path:
    """Download `url` to `path`, or return at once where `path` is already there and right.

    Parameters
    ----------
    url : str
        http or https.
    path : path-like
        Its folder is created. NAME.part beside it holds an unfinished transfer.
    md5sum : str
        Expected MD5, hexadecimal.
    size : int
        Expected length in bytes; a longer answer is cut off and refused.
    timeout : float
        Seconds without a byte before the connection is given up.
    retries : int
        Further attempts after the first one; each resumes where the last one stopped. Client errors (404 and the
        like) are not retried.
    pause : float
        Seconds before the first further attempt; doubles each time.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Path
        `path`, complete and checked.

    Raises
    ------
    ValueError
        The url is not http or https, or `path` is there with other contents.
    DownloadError
        The server was not reached, refused, or sent something else.
    """
    path = Path(path)
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise ValueError(f"url: got {url!r}; expected an http or https address")
    if path.exists():
        if path.stat().st_size == size and md5(path) == md5sum:
            return path
        raise ValueError(f"{path} exists, but is not the expected file ({size} bytes, MD5 {md5sum}); move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=not progress) as bar:
        _fetch_part(url, part, size, md5sum, timeout, retries, pause, bar)
    os.replace(part, path)
    return path


def _fetch_part(
    url: str, part: Path, size: int, md5sum: str, timeout: float, retries: int, pause: float, bar: tqdm
) -> None:
    """Bring `part` to its full, checked length, trying a bounded number of times."""
    reason = ""
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        resumed = part.exists() and part.stat().st_size > 0
        try:
            if not part.exists() or part.stat().st_size < size:
                _transfer(url, part, size, timeout, bar)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code == 416:  # it has nothing beyond what we hold: ours is not its file, so start over
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                break
            continue
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
            reason = f"{getattr(error, 'reason', None) or error or type(error).__name__}"
            continue
        if part.stat().st_size < size:
            reason = f"the connection ended after {part.stat().st_size} of {size} bytes"
            continue
        found = md5(part) if part.stat().st_size == size else f"none, since it is longer than {size} bytes"
        if found == md5sum:
            return
        part.unlink()  # nothing of it can be trusted
        reason = f"the file has MD5 {found}; expected {md5sum}"
        if not resumed:  # a whole transfer in one go came out wrong: asking again would give the same file
            break
    kept = f" {part} is kept; the same call resumes from it." if part.exists() else ""
    raise DownloadError(f"could not download {url}: {reason}.{kept}")


def _transfer(url: str, part: Path, size: int, timeout: float, bar: tqdm) -> None:
    """One connection: append to `part` what the server sends, at most one byte beyond `size`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "minilp", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        # 206 with the offset we asked for continues; anything else is the file from its beginning.
        offset = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        resume = answer.status == 206 and offset == str(have)
        if answer.status == 206 and not resume:
            part.unlink(missing_ok=True)
            raise http.client.HTTPException(f"asked for bytes from {have}, the server sent {offset or 'no offset'}")
        have = have if resume else 0
        bar.n = have
        bar.refresh()
        with open(part, "ab" if resume else "wb") as file:
            while have <= size and (block := answer.read(min(BLOCK, size + 1 - have))):
                file.write(block)
                have += len(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
