pypose-ops train cpm --preset efficientnet_lite0 --recipe --precision 32-true \
  --set "input_size=[128,128]" --set center_sigma=7.5 --backbone heatmap_net/weights.safetensors --freeze cascade.features.backbone \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.25 --epochs 4 --last-epochs 0 --out cpm_pretrained/before
