// What is wrong with a page that a person would notice: content that sticks out of the
// screen, and serious faults of accessibility (axe-core).

import type { Page } from "playwright-core";

interface AxeResult {
  violations: {
    id: string;
    impact: string;
    nodes: { target: string[]; failureSummary?: string }[];
  }[];
}

/** Runs axe-core, whose source is given, and measures the page's width. */
export async function faults(page: Page, axe: string): Promise<string[]> {
  const found: string[] = [];
  const wide = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  if (wide > 1) found.push(`the page is ${wide} px wider than the screen`);
  // As a function body the policy of the page does not apply to it.
  const result = (await page.evaluate(
    `(async () => { ${axe}; return axe.run(document, { resultTypes: ["violations"] }); })()`,
  )) as AxeResult;
  for (const violation of result.violations) {
    if (violation.impact !== "serious" && violation.impact !== "critical") continue;
    for (const node of violation.nodes.slice(0, 3)) {
      found.push(`${violation.id}: ${node.target.join(" ")}: ${node.failureSummary ?? ""}`);
    }
  }
  return found;
}
