"""What tests ask of a page, in JavaScript."""

PAINTED = """
const canvas = document.querySelector('canvas');
if (!canvas || !canvas.width) return null;
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
const style = getComputedStyle(document.documentElement);
const hex = style.getPropertyValue('--ok').trim();
const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
for (let at = 0; at < data.length; at += 4) {
  const far = Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b);
  if (data[at + 3] > 200 && far < 90) {
    const pixel = at / 4;
    return [pixel % canvas.width + 1, Math.floor(pixel / canvas.width) + 4];
  }
}
return null;
"""
"""Where the canvas has a bar of a task that has succeeded; null if it has none."""

PAINTED_WIDE = """
const canvas = document.querySelector('canvas');
if (!canvas || !canvas.width) return false;
const row = canvas.getContext('2d').getImageData(150, 100, canvas.width - 200, 1).data;
return row.some((each, at) => at % 4 === 3 && each > 100);
"""
"""Whether the canvas has anything in a row through the lane of the second step."""

FAINT_TEXTS = """
const luminance = (colour) => {
  const [r, g, b] = colour.map((each) => {
    const part = each / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const rgba = (text) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const groundOf = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = rgba(getComputedStyle(at).backgroundColor);
    if (found[3] > 0.9) return found;
  }
  return rgba(getComputedStyle(document.documentElement).backgroundColor);
};
const UNSEEN = 'svg, select, .visually-hidden, .skip';
const faint = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const isSeen = element.getClientRects().length && !element.closest(UNSEEN);
  if (!own || !isSeen) continue;
  const style = getComputedStyle(element);
  const a = luminance(rgba(style.color).slice(0, 3));
  const b = luminance(groundOf(element).slice(0, 3));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const large = parseFloat(style.fontSize) >= 18.66;
  const told = [element.className, element.textContent.slice(0, 30), ratio.toFixed(2)];
  if (ratio < (large ? 3 : 4.5)) faint.push(told);
}
return faint;
"""
"""Texts whose contrast is below what WCAG asks for, as [class, text, ratio]."""

WIDER = """
const { scrollWidth, clientWidth } = document.documentElement;
return scrollWidth - clientWidth;
"""
"""By how many pixels the page is wider than its window."""
