/* What the reader sees and holds: the markup of the demo. */
export const PANEL = `
<div class="demo-stage">
  <canvas role="img" width="512" height="512"></canvas>
  <button type="button" class="demo-start"><strong>Start the detector</strong>
    <span></span></button>
  <div class="demo-loading" hidden>
    <label>Loading <progress max="1" value="0"></progress></label>
  </div>
  <p class="demo-busy">Looking…</p>
</div>
<div class="demo-answers" hidden>
  <p class="demo-found" role="status"></p>
  <p class="demo-times"></p>
  <details><summary>The boxes in numbers</summary><ol></ol></details>
</div>
<div class="demo-controls">
  <p class="demo-message" role="alert" hidden></p>
  <div class="demo-buttons">
    <label class="demo-button">Choose a picture…
      <input type="file" accept="image/*"></label>
    <button type="button" class="demo-button demo-camera">Use the
      camera</button>
    <button type="button" class="demo-button demo-another">Draw me
      another</button>
  </div>
  <p class="demo-hint">Or drop a picture here, or paste one. It stays on your
    device, and so does what the camera sees.</p>
  <fieldset class="demo-samples"><legend>Samples</legend></fieldset>
  <label class="demo-slider">Least score <span aria-hidden="true"></span>
    <input type="range" name="least" min="0.01" max="0.99" step="0.01"
      value="0.5"></label>
  <label class="demo-choice demo-judge"><input type="checkbox" checked>
    Ask the judge about each box, in place of the two below</label>
  <label class="demo-slider">Most overlap of two boxes (IoU) <span aria-hidden="true"></span>
    <input type="range" name="overlap" min="0" max="1" step="0.01"
      value="0.5"></label>
  <label class="demo-choice demo-voting"><input type="checkbox" checked>
    Let suppressed boxes vote on the place</label>
  <label class="demo-choice demo-truth"><input type="checkbox">
    Show the true boxes, dashed</label>
</div>
<fieldset class="demo-heats" hidden><legend>Heat of the five scales: where it sees
  something</legend></fieldset>`;
