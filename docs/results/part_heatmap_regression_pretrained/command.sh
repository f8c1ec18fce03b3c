pypose-ops train part_heatmap_regression --preset efficientnet_lite0 --recipe --precision 32-true \
  --backbone heatmap_net/weights.safetensors \
  --freeze cascade.first.backbone.stem --freeze cascade.first.backbone.blocks.0 --freeze cascade.first.backbone.blocks.1 --freeze cascade.first.backbone.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.15 --phase-epochs 6,4,7 --last-epochs 2 --out part_heatmap_regression_pretrained
