/* The camera of the device, a frame at a time. Its pictures go nowhere. */
import {BadPicture, readFrame} from './pictures.js';

const PATIENCE = 20_000;  // ms until a camera must have started
const GONE = 'The camera was taken away.';
const WHY = {
  NotAllowedError: 'The camera may not be used. If you want to, allow it for '
    + 'this page beside its address, or for the browser in the settings of '
    + 'your system, and try again.',
  NotFoundError: 'No camera was found on this device.',
  NotReadableError: 'The camera did not start. Another program may be using '
    + 'it; close that, and try again.',
};

/* Wait until a film plays, or say why it does not. */
async function playing(video, gone) {
  const result = await Promise.race([
    video.play().then(() => null, (error) =>
      `The camera did not start: ${error.message}.`),
    gone.then(() => GONE),
    new Promise((done) => setTimeout(done, PATIENCE,
      'The camera did not start. Try again, or another camera.')),
  ]);
  if (result) throw new BadPicture(result);
}

/**
 * Ask for the camera, and start it.
 *
 * @param {(why: string) => void} lost called when it is pulled out.
 * @returns {Promise<{frame: () => Promise<object>, stop: () => void}>} `frame`
 *     gives what the camera sees, as `readPicture` gives a picture.
 * @throws {BadPicture} with the reason.
 */
export async function openCamera(lost) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new BadPicture('This browser gives no camera to this page'
      + (window.isSecureContext ? '; another browser may.'
        : ', for it came neither over https nor from this device itself.'));
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({audio: false, video: {
      facingMode: 'environment', width: {ideal: 640}}});
  } catch (error) {
    throw new BadPicture(WHY[error.name]
      ?? `The camera did not start: ${error.message || error.name}.`);
  }
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  const gone = new Promise((done) => {
    stream.getVideoTracks()[0].addEventListener('ended', done);
  });
  const video = Object.assign(document.createElement('video'), {
    muted: true, playsInline: true, srcObject: stream});
  try {
    await playing(video, gone);
  } catch (error) {
    stop();
    throw error;
  }
  gone.then(() => lost(GONE));
  return {frame: () => readFrame(video, "the camera's picture"), stop};
}
