// Uses the page of the recovery as a person does. Arguments: address, code, folder for screenshots, then files of a good release, of one
// that is signed by a foreign key, and of one whose image is cut; each list joined by commas.
import { chromium } from 'playwright-core';

const [url, code, shots, good, foreign, cut] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
const patience = 10 * 60 * 1000;

async function open(viewport) {
  const context = await browser.newContext({ viewport, colorScheme: 'light' });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  page.on('pageerror', e => fail('error of the page: ' + e));
  page.on('console', m => /Content Security Policy/.test(m.text()) && fail(m.text()));
  page.on('dialog', d => d.accept());
  await page.goto(url);
  return page;
}

function fail(text) { console.log('FAILED ' + text); process.exit(1); }

async function login(page) {
  await page.fill('#code', code.toLowerCase());
  await page.click('#login button');
  await page.waitForSelector('.slot');
}

async function upload(page, files) {
  await page.setInputFiles('#files', files.split(','));
  await page.click('#upload button');
}

// outcome waits for a line about the outcome that matches.
async function outcome(page, pattern) {
  await page.waitForFunction(p => new RegExp(p).test(document.getElementById('outcome').textContent), pattern);
  console.log('outcome: ' + await page.textContent('#outcome'));
}

// moved waits until the bar has stood at several places between its ends, and returns the phases that were seen.
async function moved(page, places) {
  const seen = new Set();
  while (seen.size < places) {
    const at = await page.evaluate(() => document.getElementById('job').hidden ? null : document.getElementById('bar').getAttribute('value'));
    if (at > 0 && at < 1) seen.add(at);
    await new Promise(r => setTimeout(r, 50));
  }
  console.log('progress: ' + [...seen].map(v => Math.round(v * 100) + ' %').join(', '));
}

const page = await open({ width: 760, height: 620 });
await page.waitForSelector('#login:not([hidden])');
await page.screenshot({ path: shots + '/web-code.png' });
await page.fill('#code', 'AAAA-AAAA');
await page.click('#login button');
await outcome(page, 'not the code');
await login(page);
console.log('slots: ' + (await page.locator('.slot span').allTextContents()).join(' | '));

await upload(page, foreign);
await outcome(page, 'not in the keyring');
await page.screenshot({ path: shots + '/web-refused.png' });
await upload(page, cut);
await outcome(page, 'unexpected EOF|ends|shorter|bytes');

const other = await open({ width: 390, height: 844 });
await login(other);
await upload(other, good);
await moved(page, 2); // the first page shows what the phone does
await other.screenshot({ path: shots + '/web-phone.png' });
await other.context().close(); // in the middle of the upload
await outcome(page, 'EOF|reset|closed');

await page.reload();
await page.waitForSelector('.slot');
await upload(page, good);
await moved(page, 3);
await page.screenshot({ path: shots + '/web-progress.png' });
await outcome(page, 'Installed version 2');
await browser.close();
